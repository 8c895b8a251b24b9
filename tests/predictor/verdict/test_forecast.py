"""The verdict on forecasts: every rule can fail alone and is named; noise is not trusted."""

import numpy as np
import pandas as pd
import pytest
from cleansteer.core.records import Comparison, ForecastCheck, FreshCheck, Interval
from cleansteer.predictor.evidence import fresh as fresh_check
from cleansteer.predictor.evidence.forecasts import check_forecasts, choose_groups_by_forecast
from cleansteer.predictor.evidence.fresh import compare_groups
from cleansteer.predictor.model.targets import ABSOLUTE, CLEAN_SCORE, clean_score
from cleansteer.predictor.verdict import judge_forecasts

STABILITY, COLLATERAL = ABSOLUTE.axes.values()
ABOVE, AROUND = Interval(value=0.5, low=0.3, high=0.7), Interval(value=0.1, low=-0.1, high=0.3)
TABLES = 15


def check(*cleaner: str) -> FreshCheck:
    """Predicted-clean is cleaner by these measures alone."""
    comparisons = [
        Comparison(
            measure=measure,
            other="predicted_messy",
            difference=AROUND,
            p_value=0.5,
            cleaner=measure in cleaner,
        )
        for measure in ABSOLUTE.axes.values()
    ]
    return FreshCheck(
        n_contexts=40,
        group_size=50,
        n_training=0,
        n_heldout=300,
        n_matched=240,
        features={},
        means={},
        comparisons=comparisons,
    )


def agreement(
    stability: Interval = ABOVE, collateral: Interval = ABOVE, n: int = 50
) -> ForecastCheck:
    return ForecastCheck(n_features=n, spearman={STABILITY: stability, COLLATERAL: collateral})


@pytest.mark.parametrize(
    ("fresh", "forecasts", "overall", "reasons"),
    [
        (check(STABILITY, COLLATERAL), agreement(), "trusted", ([], [])),
        (check(COLLATERAL), agreement(), "partly", (["does not beat"], [])),
        (check(STABILITY, COLLATERAL), agreement(AROUND), "partly", (["not above zero"], [])),
        (check(STABILITY), agreement(AROUND), "not trusted", (["not above"], ["does not beat"])),
        (
            check(STABILITY, COLLATERAL),
            agreement(n=29),
            "not trusted",
            (["29 random features are too few"], ["29 random features are too few"]),
        ),
        (check(STABILITY, COLLATERAL), agreement(n=30), "trusted", ([], [])),
    ],
)
def test_every_rule_can_fail(
    fresh: FreshCheck,
    forecasts: ForecastCheck,
    overall: str,
    reasons: tuple[list[str], list[str]],
) -> None:
    verdict = judge_forecasts(fresh, forecasts)
    assert verdict.overall == overall
    assert verdict.fresh_check
    for axis, expected in zip(verdict.axes.values(), reasons, strict=True):
        assert axis.trusted == (not expected)
        assert len(axis.reasons) == len(expected)
        for told, part in zip(axis.reasons, expected, strict=True):
            assert part in told


def drawn(seed: int, signal: float, n: int = 300) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forecasts, and fresh labels that have so much in common with them."""
    generator = np.random.default_rng(seed)

    def pair() -> tuple[np.ndarray, np.ndarray]:
        ours, rest = generator.normal(size=(2, n))
        return ours, signal * ours + np.sqrt(1 - signal**2) * rest

    tables: list[dict[str, np.ndarray]] = [{}, {}]
    for name, scale in (
        ("stability_abs", lambda x: 0.7 + 0.05 * x),
        ("collateral_count_0.05", lambda x: np.exp(2 + 0.3 * x)),
        ("effect_l2", lambda x: np.exp(1 + 0.1 * x)),
    ):
        for table, values in zip(tables, pair(), strict=True):
            table[name] = scale(values)
    frames = []
    for table in tables:
        frame = pd.DataFrame(table)
        frame["collateral_per_effect"] = frame["collateral_count_0.05"] / frame["effect_l2"]
        frame[CLEAN_SCORE] = clean_score(frame)
        frames.append(frame)
    return frames[0], frames[1].assign(n_contexts=40)


def overall(seed: int, signal: float) -> str:
    forecasts, fresh = drawn(seed, signal)
    groups = choose_groups_by_forecast(forecasts, seed)
    steered = fresh.loc[np.sort(np.concatenate(list(groups.features.values())))]
    compared = compare_groups(groups, steered, seed)
    return judge_forecasts(compared, check_forecasts(forecasts, steered, groups, seed)).overall


def test_noise_is_not_trusted_and_good_forecasts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_check, "RESAMPLES", 500)
    noise = [overall(seed, 0.0) for seed in range(TABLES)]
    assert noise == ["not trusted"] * TABLES
    good = [overall(seed, 0.8) for seed in range(TABLES)]
    assert good.count("trusted") >= 0.9 * TABLES


def test_another_seed_draws_other_random_features_alone() -> None:
    forecasts, _ = drawn(0, 0.5)
    one, same, other = (choose_groups_by_forecast(forecasts, seed).features for seed in (0, 0, 1))
    for name in one:
        assert np.array_equal(one[name], same[name])
        assert np.array_equal(one[name], other[name]) == (name != "random")


def test_features_in_another_order_are_other_names_for_the_same() -> None:
    """The groups depend on what is forecast, not on the index, where nothing ties."""
    forecasts, _ = drawn(0, 0.5)
    turned = forecasts.iloc[::-1].reset_index(drop=True)
    one, other = (choose_groups_by_forecast(table, 0).features for table in (forecasts, turned))
    for name in ("predicted_clean", "predicted_messy"):
        assert np.array_equal(np.sort(len(forecasts) - 1 - other[name]), one[name])
