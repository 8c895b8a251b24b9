"""Dose forecasts: laws of the correction, its intervals, the validity radius and the recommendation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cleansteer.predictor.model.dosing import COUNT, FORECAST, KL, SCALES, DoseCorrection, Doses
from cleansteer.predictor.model.forecast import (
    BEYOND,
    FACTOR,
    NEVER_HOLDS,
    NO_RESPONSE,
    DoseForecast,
    FirstOrder,
    dose_strengths,
)
from scipy.stats import binomtest

STRENGTHS = 2.0 ** np.arange(-2, 4)
UNIT = 3.0
N_FEATURES, N_DOSED = 400, 100
QUIET = {label: np.zeros(len(STRENGTHS)) for label in FORECAST}
BETWEEN = [0.3, 0.9, 1.0, 3.1, 7.5]


def world(seed: int, n_features: int = N_FEATURES, spread: float = 0.5) -> FirstOrder:
    """What linear response says of a dictionary."""
    generator = np.random.default_rng(seed)
    kl = 0.01 * generator.lognormal(sigma=spread, size=n_features)
    # Counts saturate, as those of a panel do.
    push = STRENGTHS * generator.lognormal(sigma=0.2, size=(n_features, 1))
    return FirstOrder(
        features=np.arange(n_features),
        strength=1.0,
        unit=np.full(n_features, UNIT),
        kl=kl,
        stability=generator.uniform(0.3, 0.9, n_features),
        effect=generator.lognormal(sigma=0.3, size=n_features),
        strengths=STRENGTHS,
        counts=60 * push / (1 + push),
        covariates=generator.normal(size=(n_features, 3)),
    )


def labels(
    first: FirstOrder, features: np.ndarray, seed: int, noise: float = 0.0, bend: float = 0.0
) -> pd.DataFrame:
    """Measured doses: first order, bent, with errors of each feature's own that grow with the dose."""
    generator = np.random.default_rng([seed, 1])
    own = generator.normal(size=(len(first.features), 2))
    tables = []
    for strength in first.strengths:
        growth = np.log1p(first.forecast(KL, strength) / 0.05)
        error = noise * (own[:, 0] + own[:, 1] * growth) + bend * growth
        table = pd.DataFrame({"feature": first.features, "alpha": strength})
        table[KL] = first.forecast(KL, strength) * np.exp(error)
        odds = first.stability / (1 - first.stability) * np.exp(error)
        table["stability_abs"] = odds / (1 + odds)
        for label in (COUNT, "collateral_per_effect"):
            table[label] = first.forecast(label, strength) * np.exp(error / 10)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    return table[table["feature"].isin(features)]


def dosed(seed: int, n_features: int = N_FEATURES) -> np.ndarray:
    return np.sort(np.random.default_rng([seed, 2]).permutation(n_features)[:N_DOSED])


@pytest.fixture(scope="module")
def noisy() -> tuple[FirstOrder, DoseForecast]:
    first = world(0, spread=1.0)
    return first, DoseForecast(first, labels(first, dosed(0), 0, noise=0.2, bend=0.3), QUIET, 0)


def test_nothing_is_corrected_where_first_order_is_exact() -> None:
    first = world(1)
    forecast = DoseForecast(first, labels(first, dosed(1), 1), QUIET, 0)
    table = forecast.at(BETWEEN, abstain=False)
    for alpha, rows in table.groupby("alpha"):
        exact = first.forecast(KL, float(alpha))
        for name in ("kl", "kl_low", "kl_high"):
            np.testing.assert_allclose(rows[name], exact, rtol=1e-6)
        np.testing.assert_allclose(rows["stability_abs"], first.stability, rtol=1e-6)
        np.testing.assert_allclose(rows[COUNT], first.forecast(COUNT, float(alpha)), rtol=1e-6)
    recommended = forecast.recommend(0.1)
    inside = recommended["reason"] == ""
    assert inside.mean() > 0.8
    exact = np.sqrt(0.1 / first.kl[inside])
    np.testing.assert_allclose(recommended.loc[inside, "recommended_alpha"], exact, rtol=1e-6)


def test_a_bend_that_all_features_share_is_learned() -> None:
    first = world(2)
    measured = labels(first, first.features, 2, bend=0.3)
    forecast = DoseForecast(first, measured[measured["feature"].isin(dosed(2))], QUIET, 0)
    table = forecast.at(list(STRENGTHS), abstain=False).merge(measured, on=["feature", "alpha"])
    plain = np.concatenate([first.forecast(KL, s)[:, None] for s in STRENGTHS], axis=1).ravel()
    ours = np.abs(np.log(table["kl"] / table[KL]))
    theirs = np.abs(np.log(plain / table[KL].to_numpy()))
    assert ours.median() < 0.2 * np.median(theirs)


@pytest.mark.parametrize("label", [KL, COUNT])
def test_intervals_cover_as_often_as_they_say(label: str) -> None:
    """Over worlds, one held-out feature each, for those of one world share their dose features."""
    to, hits = SCALES[label].to, []
    for seed in range(40):
        first = world(seed, n_features=N_DOSED + 1)
        measured = labels(first, first.features, seed, noise=0.2, bend=0.3)
        truth = to(measured.pivot(index="feature", columns="alpha", values=label).to_numpy())
        log_kl = np.stack([first.log_kl(s) for s in STRENGTHS], axis=1)
        forecast = to(np.stack([first.forecast(label, s) for s in STRENGTHS], axis=1))
        doses = Doses(
            np.log(STRENGTHS),
            log_kl[:-1],
            forecast[:-1],
            truth[:-1],
            first.covariates[:-1],
            QUIET[label],
        )
        correction = DoseCorrection(seed, bends_alone=label == KL).fit(doses)
        for number, strength in enumerate(STRENGTHS):
            value, low, high = correction.predict(
                float(np.log(strength)),
                log_kl[-1:, number],
                forecast[-1:, number],
                first.covariates[-1:],
            )
            assert low[0] <= value[0] <= high[0]
            hits.append((number, bool(low[0] <= truth[-1, number] <= high[0])))
    for number in range(len(STRENGTHS)):
        inside = [hit for own, hit in hits if own == number]
        assert binomtest(sum(inside), len(inside), 0.9).pvalue > 1e-3


def test_other_contexts_widen_intervals(noisy: tuple[FirstOrder, DoseForecast]) -> None:
    first, narrow = noisy
    shared = {label: np.full(len(STRENGTHS), 0.3) for label in FORECAST}
    measured = labels(first, dosed(0), 0, noise=0.2, bend=0.3)
    wide = DoseForecast(first, measured, shared, 0).at([1.0], abstain=False)
    plain = narrow.at([1.0], abstain=False)
    np.testing.assert_allclose(wide["kl"], plain["kl"], rtol=1e-9)
    assert (wide["kl_high"] > plain["kl_high"]).all()
    assert (wide["kl_low"] < plain["kl_low"]).all()
    added = np.log(wide["kl_high"] / wide["kl"]) ** 2 - np.log(plain["kl_high"] / plain["kl"]) ** 2
    np.testing.assert_allclose(added, (1.6448536 * 0.3) ** 2, rtol=1e-5)


@pytest.mark.parametrize("trust", [0.0, 0.4, 1.0])
def test_as_much_of_a_common_level_is_believed_as_is_said(trust: float) -> None:
    """Labels in contexts in which KL is everywhere twice as large."""
    first = world(8)
    measured = labels(first, dosed(8), 8)
    measured[KL] *= 2
    table = DoseForecast(first, measured, QUIET, 0, trust).at([1.0], abstain=False)
    np.testing.assert_allclose(table["kl"], 2**trust * first.kl, rtol=1e-6)
    np.testing.assert_allclose(table["stability_abs"], first.stability, rtol=1e-6)


def test_kl_never_falls_as_the_strength_rises(noisy: tuple[FirstOrder, DoseForecast]) -> None:
    table = noisy[1].at(list(np.geomspace(0.01, 8, 40)), abstain=False)
    for name in ("kl", "kl_low", "kl_high"):
        steps = table.groupby("feature")[name].diff().dropna()
        assert len(steps)
        assert (steps >= -1e-12).all()


def test_it_abstains_beyond_the_radius_and_there_alone(
    noisy: tuple[FirstOrder, DoseForecast],
) -> None:
    _, forecast = noisy
    recommended = forecast.recommend(0.1).set_index("feature")
    radius = recommended["validity_radius_alpha"]
    assert (radius < STRENGTHS[-1]).sum() > 10
    assert (radius == STRENGTHS[-1]).sum() > 10
    strengths = [*STRENGTHS, 20.0]
    table = forecast.at(strengths)
    within = table["alpha"] <= table["feature"].map(radius) * (1 + 1e-9)
    assert (table["within_radius"] == within).all()
    columns = [name for name in table if str(name).startswith(("kl", "stability", "collateral"))]
    assert table.loc[~within, columns].isna().all(axis=None)
    assert table.loc[within, columns].notna().all(axis=None)
    assert not table.loc[table["alpha"] == 20.0, "within_radius"].any()
    held = table[within]
    assert (held["kl_high"] <= FACTOR * held["kl"] * (1 + 1e-9)).all()
    assert (held["kl"] <= FACTOR * held["kl_low"] * (1 + 1e-9)).all()
    reasons = recommended["reason"]
    assert {BEYOND, ""} <= set(reasons)
    assert set(reasons) <= {BEYOND, NEVER_HOLDS, ""}
    assert (recommended["recommended_alpha"].isna() == (reasons != "")).all()
    given = recommended[reasons == ""]
    assert (given["recommended_alpha"] <= given["validity_radius_alpha"]).all()
    assert (given["recommended_kl"] <= 0.1 * (1 + 1e-6)).all()
    cautious = recommended.dropna(subset=["cautious_alpha", "recommended_alpha"])
    assert len(cautious)
    assert (cautious["cautious_alpha"] < cautious["recommended_alpha"]).all()


def test_no_forecast_reaches_beyond_the_largest_measured_dose() -> None:
    first = world(3)
    far = first.features.max()
    first.kl[far] = 100 * first.kl.max()
    chosen = np.setdiff1d(dosed(3), [far])
    forecast = DoseForecast(first, labels(first, chosen, 3), QUIET, 0)
    radius = forecast.recommend(0.1)["validity_radius_alpha"].iloc[far]
    most = np.sqrt(first.kl[chosen].max() / first.kl[far]) * STRENGTHS[-1]
    assert radius <= most < radius * 2**0.25 * (1 + 1e-9)


def test_a_feature_that_moves_nothing_has_no_dose() -> None:
    first = world(4)
    first.kl[:3] = 0.0
    forecast = DoseForecast(first, labels(first, np.arange(10, 60), 4, noise=0.1), QUIET, 0)
    recommended = forecast.recommend(0.1)
    assert recommended["reason"].eq(NO_RESPONSE).sum() == 3
    assert recommended.loc[:2, "recommended_alpha"].isna().all()
    assert forecast.at([1.0]).loc[:2, "kl"].isna().all()


def test_twice_the_direction_takes_half_the_coefficient() -> None:
    first = world(5, n_features=200)
    chosen = np.arange(100)
    measured = labels(first, chosen, 5, noise=0.05, bend=0.3)
    twice = replace(first, kl=first.kl.copy())
    twice.kl[100:] *= 4
    one, two = (
        DoseForecast(each, measured, QUIET, 0).recommend(0.1).loc[100:] for each in (first, twice)
    )
    both = (one["reason"] == "") & (two["reason"] == "")
    assert both.mean() > 0.8
    np.testing.assert_allclose(
        two.loc[both, "recommended_coefficient"],
        one.loc[both, "recommended_coefficient"] / 2,
        rtol=1e-6,
    )


def test_a_permuted_dictionary_permutes_the_table() -> None:
    first = world(6, n_features=150)
    chosen = np.arange(0, 150, 2)
    measured = labels(first, chosen, 6, noise=0.2)
    order = np.concatenate([np.arange(0, 150, 2), np.random.default_rng(0).permutation(75) * 2 + 1])
    # Features that are not measured change places; the folds are drawn for those that are.
    places = np.arange(150)
    places[1::2] = order[75:]
    moved = replace(
        first,
        kl=first.kl[places],
        stability=first.stability[places],
        effect=first.effect[places],
        counts=first.counts[places],
        covariates=first.covariates[places],
    )
    one = DoseForecast(first, measured, QUIET, 0).recommend(0.1)
    two = DoseForecast(moved, measured, QUIET, 0).recommend(0.1)
    expected = one.iloc[places].assign(feature=np.arange(150)).reset_index(drop=True)
    pd.testing.assert_frame_equal(two, expected)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_coefficients_have_the_settings_sign(sign: float) -> None:
    first = replace(world(7), unit=np.full(N_FEATURES, sign * UNIT))
    measured = labels(first, dosed(7), 7, noise=0.1)
    measured["alpha"] *= sign
    forecast = DoseForecast(first, measured, QUIET, 0)
    recommended = forecast.recommend(0.1).dropna(subset=["recommended_alpha"])
    assert len(recommended)
    assert (np.sign(recommended["recommended_alpha"]) == sign).all()
    np.testing.assert_allclose(
        recommended["recommended_coefficient"], recommended["recommended_alpha"] * UNIT, rtol=1e-12
    )
    table = forecast.at([sign * 2.0])
    np.testing.assert_allclose(table["coefficient"], table["alpha"] * UNIT)


@pytest.mark.parametrize(("kl", "strength"), [(0.01, 1.0), (1.0, 2.0), (1e-5, -0.5), (30.0, 1.0)])
def test_doses_lie_around_the_budget(kl: float, strength: float) -> None:
    found = dose_strengths(np.full(9, kl), strength, 0.1)
    np.testing.assert_allclose(found[1:] / found[:-1], 2.0)
    doublings = np.log2(found / abs(strength))
    np.testing.assert_allclose(doublings, np.round(doublings))
    reached = kl * (found / abs(strength)) ** 2
    assert reached[-3] < 0.1 < reached[-1]
