"""Partial rank correlations: what they are, what they must not see, and how sure they are."""

import gc

import numpy as np
import pandas as pd
import pytest
from cleansteer.core.errors import InputError
from cleansteer.predictor.evidence import partial
from cleansteer.predictor.evidence.partial import COLUMNS, partial_rank_correlations
from scipy.stats import binomtest, kstest, rankdata, spearmanr, t

SIGNIFICANT = 1e-3  # seeds are fixed, so what passes once passes always
CLOSE = 1e-9  # another order of sums
QUANTILES = 0.03  # of 2,000 resamples by other draws agree to about 0.01


@pytest.fixture
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "RESAMPLES", 400)
    # multipletests collects garbage in every call, which takes longer than all else here.
    monkeypatch.setattr(gc, "collect", lambda: 0)


def made_up(n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Four statistics, one of them with ties and one heavy-tailed, two controls, a label."""
    generator = np.random.default_rng(seed)
    index = generator.permutation(10 * n)[:n]
    controls = pd.DataFrame(generator.lognormal(size=(n, 2)), index, ["size", "rate"])
    values = generator.normal(size=(n, 4)) + controls["size"].to_numpy()[:, None]
    values[:, 1] = values[:, 1].round()
    values[:, 2] **= 3
    label = values[:, 0] + 0.2 * values[:, 1] + controls["rate"] + generator.normal(size=n)
    return pd.DataFrame(values, index, list("abcd")), controls, label.rename("label")


def by_precision(x: pd.Series, controls: pd.DataFrame, y: pd.Series) -> float:
    """The same by the inverse of the ranks' correlation matrix."""
    ranks = np.column_stack([rankdata(v) for v in (x, y, *controls.to_numpy().T)])
    precision = np.linalg.inv(np.corrcoef(ranks.T))
    return -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])


@pytest.mark.usefixtures("_few_resamples")
def test_agrees_with_the_inverse_of_the_correlation_matrix() -> None:
    statistics, controls, y = made_up(70, seed=0)
    table = partial_rank_correlations(statistics, controls, y, seed=0)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["statistic"]) == list(statistics)
    rho = np.array([by_precision(statistics[name], controls, y) for name in statistics])
    np.testing.assert_allclose(table["rho"], rho, atol=CLOSE)
    p = 2 * t.sf(np.abs(rho) * np.sqrt((70 - 4) / (1 - rho**2)), 70 - 4)
    np.testing.assert_allclose(table["p"], p, atol=CLOSE)


def test_intervals_are_of_resamples_that_are_ranked_and_fitted_anew() -> None:
    statistics, controls, y = made_up(60, seed=1)
    table = partial_rank_correlations(statistics, controls, y, seed=0).set_index("statistic")
    generator = np.random.default_rng(99)
    draws = [generator.integers(60, size=60) for _ in range(2000)]
    for name in ("a", "b"):
        found = [by_precision(statistics[name].iloc[d], controls.iloc[d], y.iloc[d]) for d in draws]
        low, high = np.quantile(found, [0.025, 0.975])
        assert table.loc[name, "low"] == pytest.approx(low, abs=QUANTILES)
        assert table.loc[name, "high"] == pytest.approx(high, abs=QUANTILES)


@pytest.mark.usefixtures("_few_resamples")
def test_without_controls_it_is_spearmans() -> None:
    statistics, controls, y = made_up(50, seed=2)
    table = partial_rank_correlations(statistics, controls[[]], y, seed=0)
    expected = [spearmanr(statistics[name], y) for name in statistics]
    np.testing.assert_allclose(table["rho"], [e.statistic for e in expected], atol=CLOSE)
    np.testing.assert_allclose(table["p"], [e.pvalue for e in expected], atol=CLOSE)


@pytest.mark.usefixtures("_few_resamples")
def test_only_order_matters() -> None:
    statistics, controls, y = made_up(50, seed=3)
    table = partial_rank_correlations(statistics, controls, y, seed=0)
    bent = partial_rank_correlations(
        np.exp(statistics / 100), controls**3, np.arctan(y / 10), seed=0
    )
    pd.testing.assert_frame_equal(bent, table, rtol=0, atol=CLOSE)
    falling = partial_rank_correlations(-statistics, -controls, y, seed=0)
    np.testing.assert_allclose(falling["rho"], -table["rho"], atol=CLOSE)
    np.testing.assert_allclose(falling["low"], -table["high"], atol=CLOSE)
    np.testing.assert_allclose(falling["p"], table["p"], atol=CLOSE)


@pytest.mark.usefixtures("_few_resamples")
def test_order_of_features_statistics_and_controls_does_not_matter() -> None:
    statistics, controls, y = made_up(50, seed=4)
    table = partial_rank_correlations(statistics, controls, y, seed=0)
    turned = partial_rank_correlations(
        statistics[["d", "a", "c", "b"]], controls[["rate", "size"]], y, seed=0
    )
    back = turned.set_index("statistic").loc[list("abcd")].reset_index()
    pd.testing.assert_frame_equal(back, table, rtol=0, atol=CLOSE)
    other = np.random.default_rng(0).permutation(50)
    moved = partial_rank_correlations(
        statistics.iloc[other], controls.iloc[other], y.iloc[other], seed=0
    )
    np.testing.assert_allclose(moved[["rho", "p"]], table[["rho", "p"]], atol=CLOSE)


@pytest.mark.usefixtures("_few_resamples")
def test_what_acts_only_through_a_control_is_not_found() -> None:
    """Alone it correlates; given the control it is called significant as often as chance does."""
    called, alone = [], []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        control, one, two = generator.normal(size=(3, 80))
        x, y = pd.DataFrame({"x": np.exp(control + one)}), pd.Series((control + two) ** 3)
        table = partial_rank_correlations(x, pd.DataFrame({"c": control}), y, seed)
        called.append(table["p"][0] < 0.05)
        alone.append(spearmanr(x["x"], y).pvalue < 0.05)
    assert np.mean(alone) > 0.9
    assert binomtest(sum(called), len(called), 0.05).pvalue > SIGNIFICANT


@pytest.mark.usefixtures("_few_resamples")
def test_p_values_are_uniform_without_an_effect() -> None:
    """Statistics that are independent of label and controls have independent p-values given these."""
    p = []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        statistics = pd.DataFrame(generator.normal(size=(60, 20))).rename(columns=str)
        controls = pd.DataFrame(generator.normal(size=(60, 3)))
        y = controls.sum(axis=1) + generator.normal(size=60)
        p.extend(partial_rank_correlations(statistics, controls, y, seed)["p"])
    assert len(p) == 600
    assert kstest(p, "uniform").pvalue > SIGNIFICANT


@pytest.mark.usefixtures("_few_resamples")
def test_intervals_hold_the_truth() -> None:
    """Normal variables, of which the ranks' correlations, 6/pi asin(r/2), are known."""
    r = np.array([[1.0, 0.5, 0.4], [0.5, 1.0, 0.6], [0.4, 0.6, 1.0]])
    precision = np.linalg.inv(6 / np.pi * np.arcsin(r / 2))
    truth = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    root = np.linalg.cholesky(r)
    held = []
    for seed in range(300):
        x, y, c = root @ np.random.default_rng(seed).normal(size=(3, 120))
        table = partial_rank_correlations(
            pd.DataFrame({"x": x}), pd.DataFrame({"c": c}), pd.Series(y), seed
        )
        held.append(table["low"][0] <= truth <= table["high"][0])
    assert binomtest(sum(held), len(held), 0.95).pvalue > SIGNIFICANT


@pytest.mark.usefixtures("_few_resamples")
def test_corrections_are_holms_and_benjamini_hochbergs() -> None:
    generator = np.random.default_rng(0)
    y = pd.Series(generator.normal(size=80))
    statistics = pd.DataFrame({f"s{k}": k / 6 * y + generator.normal(size=80) for k in range(7)})
    table = partial_rank_correlations(statistics, statistics[[]], y, seed=0)
    p = table["p"].to_numpy()
    order = np.argsort(p)
    holm, bh = np.empty(7), np.empty(7)
    holm[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(7, 0, -1)), 1)
    bh[order] = np.minimum.accumulate((p[order] * 7 / np.arange(1, 8))[::-1])[::-1]
    np.testing.assert_allclose(table["p_holm"], holm, atol=CLOSE)
    np.testing.assert_allclose(table["p_bh"], bh, atol=CLOSE)
    assert (p <= table["p_bh"]).all()
    assert (table["p_bh"] <= table["p_holm"] + CLOSE).all()


@pytest.mark.usefixtures("_few_resamples")
def test_a_statistic_of_which_the_controls_leave_nothing_has_no_row() -> None:
    statistics, controls, y = made_up(60, seed=5)
    table = partial_rank_correlations(statistics, controls, y, seed=0)
    more = statistics.assign(
        still=1.0, size=controls["size"], entropy=-np.log(controls["rate"]), e=statistics["d"]
    )
    found = partial_rank_correlations(more, controls, y, seed=0)
    assert list(found["statistic"]) == [*statistics, "e"]
    five = partial_rank_correlations(statistics.assign(e=statistics["d"]), controls, y, seed=0)
    pd.testing.assert_frame_equal(found, five)
    assert (found["p_holm"][:4] >= table["p_holm"]).all()


@pytest.mark.usefixtures("_few_resamples")
def test_where_the_controls_leave_nothing_of_the_label_there_are_no_rows() -> None:
    statistics, controls, y = made_up(60, seed=5)
    filled = partial_rank_correlations(statistics, controls, y, seed=0)
    for label in (np.log(controls["rate"]), y * 0):
        table = partial_rank_correlations(statistics, controls, label, seed=0)
        assert table.empty
        assert list(table.columns) == list(COLUMNS)
        assert (table.dtypes[1:] == filled.dtypes[1:]).all()


@pytest.mark.usefixtures("_few_resamples")
def test_constant_and_repeated_controls_remove_nothing_more() -> None:
    statistics, controls, y = made_up(60, seed=6)
    table = partial_rank_correlations(statistics, controls, y, seed=0)
    idle = controls.assign(coefficient=2.0, again=controls["size"] ** 2)
    same = partial_rank_correlations(statistics, idle, y, seed=0)
    pd.testing.assert_frame_equal(same, table, rtol=0, atol=CLOSE)


@pytest.mark.usefixtures("_few_resamples")
def test_a_statistic_that_rarely_fires_has_an_interval() -> None:
    """Many resamples hold none of its firings: they count as correlation 0."""
    statistics, controls, y = made_up(60, seed=7)
    rare = statistics[["a"]].assign(rare=np.where(np.arange(60) == 11, 3.0, 0.0))
    table = partial_rank_correlations(rare, controls, y, seed=0).set_index("statistic")
    assert np.isfinite(table.to_numpy()).all()
    assert table.loc["rare", "low"] <= 0 <= table.loc["rare", "high"]


@pytest.mark.usefixtures("_few_resamples")
def test_a_statistic_that_orders_features_as_the_label_does_is_certain() -> None:
    _, controls, y = made_up(60, seed=8)
    table = partial_rank_correlations(pd.DataFrame({"x": np.exp(y / 9)}), controls, y, seed=0)
    assert table.loc[0, ["rho", "low", "high"]].to_list() == pytest.approx([1, 1, 1], abs=CLOSE)
    assert table.loc[0, ["p", "p_holm", "p_bh"]].to_list() == pytest.approx([0, 0, 0], abs=CLOSE)


def test_input_that_cannot_be_used_is_refused() -> None:
    statistics, controls, y = made_up(30, seed=0)
    with pytest.raises(ValueError, match="not of the same features in one order"):
        partial_rank_correlations(statistics.iloc[::-1], controls, y, seed=0)
    missing = statistics.copy()
    missing.iloc[4, 2] = np.nan
    with pytest.raises(
        InputError, match=f"column 'c' holds nan for feature {y.index[4]}, expected"
    ):
        partial_rank_correlations(missing, controls, y, seed=0)
    with pytest.raises(InputError, match=r"4 features leave no .* 2 controls, expected at least 5"):
        partial_rank_correlations(statistics[:4], controls[:4], y[:4], seed=0)
    assert np.isfinite(partial_rank_correlations(statistics[:5], controls[:5], y[:5], 0)["p"]).all()
