"""Transforms: no unit, no outliers, no skew, and a way back."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.predictor.model.transforms import (
    LogTransform,
    NormalScores,
    StandardScores,
    rank_normalised,
)
from scipy.special import ndtri
from scipy.stats import normaltest, rankdata

ROUNDING = 1e-12
"""Of standardising sums of some hundred numbers."""
LABELS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda generator, n: generator.normal(size=n),
    "skewed": lambda generator, n: generator.lognormal(sigma=2, size=n),
    "counts": lambda generator, n: generator.poisson(3, n).astype(float),
    "two values": lambda generator, n: (generator.random(n) < 0.2).astype(float),
    "huge": lambda generator, n: 1e12 * generator.normal(size=n),
}


@pytest.fixture(params=LABELS)
def label(request: pytest.FixtureRequest) -> np.ndarray:
    return LABELS[request.param](np.random.default_rng(0), 80)


def statistics(n: int = 60, seed: int = 0) -> np.ndarray:
    """Skewed ones, of either sign, often 0, the same everywhere, and 0 everywhere."""
    generator = np.random.default_rng(seed)
    skewed = generator.lognormal(sigma=2, size=n)
    rows = [
        skewed,
        generator.normal(size=n),
        generator.poisson(0.5, n) * skewed,
        np.full(n, 0.1),
        np.zeros(n),
    ]
    return np.column_stack(rows)


def test_logs_are_standardised() -> None:
    T = LogTransform().fit(statistics())(statistics())
    np.testing.assert_allclose(T.mean(axis=0), 0, atol=ROUNDING)
    np.testing.assert_allclose(T[:, :3].std(axis=0), 1, rtol=ROUNDING)


def test_logs_are_their_formula() -> None:
    """Scales: a tenth of the median of what is not 0; 1 without any."""
    X = np.array([[0.0, 0.0, -3.0], [10.0, 0.0, 1.0], [30.0, 0.0, 2.0], [50.0, 0.0, 0.0]])
    logs = np.sign(X) * np.log1p(np.abs(X) / [3.0, 1.0, 0.2])
    expected = (logs - logs.mean(axis=0)) / [logs[:, 0].std(), 1.0, logs[:, 2].std()]
    np.testing.assert_allclose(LogTransform().fit(X)(X), expected, atol=ROUNDING)


@pytest.mark.parametrize("unit", [1e-3, 1000.0, 2.0**30])
def test_logs_have_no_unit(unit: float) -> None:
    X, new = statistics(), statistics(30, 1)
    np.testing.assert_allclose(
        LogTransform().fit(unit * X)(unit * new), LogTransform().fit(X)(new), atol=1e-10
    )


def test_a_column_has_nothing_to_do_with_the_others() -> None:
    X, new = statistics(), statistics(30, 1)
    whole = LogTransform().fit(X)(new)
    for column in range(X.shape[1]):
        alone = LogTransform().fit(X[:, [column]])(new[:, [column]])
        np.testing.assert_allclose(alone[:, 0], whole[:, column], atol=ROUNDING)


def test_what_rounding_leaves_of_a_constant_is_nothing() -> None:
    """As the norms of unit rows, or the KL of a matched push; a spread of a thousandth is one."""
    generator = np.random.default_rng(0)
    X = np.column_stack([1 + size * generator.normal(size=60) for size in (1e-7, 1e-3)])
    T = LogTransform().fit(X.astype(np.float32).astype(np.float64))(X)
    assert (T[:, 0] == 0).all()
    assert T[:, 1].std() == pytest.approx(1, rel=1e-3)


def test_constant_columns_become_zero_whatever_comes() -> None:
    transform = LogTransform().fit(statistics())
    for new in (statistics(), statistics(30, 1) * 1e9, statistics(30, 1) - 7):
        np.testing.assert_allclose(transform(new)[:, 3:], 0, atol=ROUNDING)


def test_logs_rise_and_are_odd() -> None:
    X = np.random.default_rng(0).normal(size=(200, 3)) * [1, 1e-6, 1e6]
    transform = LogTransform().fit(X)
    assert (np.diff(transform(np.sort(X, axis=0)), axis=0) > 0).all()
    np.testing.assert_allclose(LogTransform().fit(-X)(-X), -transform(X), atol=ROUNDING)


@pytest.mark.parametrize("scale", [10.0, 1e6, 1e30])
def test_what_lies_outside_is_clipped(scale: float) -> None:
    X = statistics()
    transform = LogTransform().fit(X)
    outside = statistics(30, 1) + scale * np.random.default_rng(2).normal(size=(30, X.shape[1]))
    clipped = np.clip(outside, X.min(axis=0), X.max(axis=0))
    assert not np.array_equal(outside, clipped)
    assert np.array_equal(transform(outside), transform(clipped))
    assert np.abs(transform(outside)).max() <= np.abs(transform(X)).max()


def test_scores_are_normal_quantiles_of_ranks(label: np.ndarray) -> None:
    expected = ndtri((rankdata(label) - 0.5) / len(label))
    np.testing.assert_allclose(NormalScores().fit(label)(label), expected, rtol=1e-12, atol=1e-15)


def test_scores_of_skewed_labels_are_normal() -> None:
    y = np.random.default_rng(0).lognormal(sigma=3, size=300)
    assert normaltest(y).pvalue < 1e-6
    assert normaltest(NormalScores().fit(y)(y)).pvalue > 0.5


def test_scores_lead_back_to_the_labels(label: np.ndarray) -> None:
    scores = NormalScores().fit(label)
    assert np.array_equal(scores.back(scores(label)), label)


def test_equal_labels_share_a_score_and_others_do_not(label: np.ndarray) -> None:
    scores = NormalScores().fit(label)(label)
    assert len(np.unique(scores)) == len(np.unique(label))
    order = np.argsort(label, kind="stable")
    rises = np.diff(label[order]) > 0
    assert ((np.diff(scores[order]) > 0) == rises).all()
    assert (np.diff(scores[order])[~rises] == 0).all()


def test_the_way_back_rises_everywhere(label: np.ndarray) -> None:
    scores = NormalScores().fit(label)
    back = scores.back(np.linspace(-30, 30, 4001))
    assert (np.diff(back) > 0).all()
    assert back[0] < label.min()
    assert back[-1] > label.max()


def test_between_labels_the_way_back_is_straight() -> None:
    y = np.array([1.0, 2.0, 10.0])
    scores = NormalScores().fit(y)
    middle = (scores(y)[1:] + scores(y)[:-1]) / 2
    np.testing.assert_allclose(scores.back(middle), [1.5, 6.0])


def test_beyond_the_labels_it_goes_on_as_the_outer_tenth_did() -> None:
    y = np.random.default_rng(0).normal(size=200)
    scores = NormalScores().fit(y)
    z, levels = np.sort(scores(y)), np.sort(y)
    for end, inner, away in ((0, 20, -1.5), (-1, -21, 1.5)):
        slope = (levels[end] - levels[inner]) / (z[end] - z[inner])
        expected = levels[end] + slope * away
        assert scores.back(z[[end]] + away) == pytest.approx(expected)


def test_labels_outside_have_the_scores_of_the_ends(label: np.ndarray) -> None:
    scores = NormalScores().fit(label)
    span = np.ptp(label)
    new = np.array([label.min() - span, label.min(), label.max(), label.max() + span])
    low, same_low, same_high, high = scores(new)
    assert (low, high) == (same_low, same_high)


@pytest.mark.parametrize("rising", [np.exp, np.cbrt, lambda y: 1000 * y - 7])
def test_scores_of_a_rising_function_are_the_same(
    rising: Callable[[np.ndarray], np.ndarray],
) -> None:
    y = np.random.default_rng(0).normal(size=80).round(1)
    assert np.array_equal(NormalScores().fit(rising(y))(rising(y)), NormalScores().fit(y)(y))


def test_falling_labels_have_the_opposite_scores() -> None:
    y = np.random.default_rng(0).poisson(3, 80).astype(float)
    opposite = NormalScores().fit(-y)(-y)
    np.testing.assert_allclose(opposite, -NormalScores().fit(y)(y), atol=ROUNDING)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e9])
def test_a_constant_label_is_all_there_is(value: float) -> None:
    scores = NormalScores().fit(np.full(40, value))
    assert (scores(np.array([value, value + 1, value - 1])) == 0).all()
    assert (scores.back(np.array([-9.0, 0.0, 9.0])) == value).all()


def test_standard_scores_keep_the_tails_and_come_back(label: np.ndarray) -> None:
    scores = StandardScores().fit(label)
    z = scores(label)
    assert abs(z.mean()) < 1e-9
    assert abs(z.std() - 1) < 1e-9
    np.testing.assert_allclose(scores.back(z), label, rtol=1e-9, atol=1e-9 * np.abs(label).max())
    beyond = scores.back(np.array([z.min() - 2, z.max() + 2]))
    expected = [label.min() - 2 * label.std(), label.max() + 2 * label.std()]
    np.testing.assert_allclose(beyond, expected)


def test_a_constant_keeps_its_value_exactly() -> None:
    scores = StandardScores().fit(np.full(7, 0.1))
    assert (scores.back(np.array([-3.0, 0.0, 3.0])) == 0.1).all()


def test_ranks_lie_between_zero_and_one_and_are_the_mean_ones() -> None:
    table = pd.DataFrame({"a": [3.0, 1.0, 1.0, 9.0], "b": [2.0, 2.0, 2.0, 2.0]}, index=list("wxyz"))
    ranks = rank_normalised(table)
    assert ranks["a"].to_dict() == {"w": 0.625, "x": 0.25, "y": 0.25, "z": 0.875}
    assert (ranks["b"] == 0.5).all()
    some = rank_normalised(synthetic.statistics(50, 0))
    assert ((some > 0) & (some < 1)).all(axis=None)
    np.testing.assert_allclose(some.mean(), 0.5)


def test_ranks_do_not_change_with_rising_maps_and_turn_with_falling_ones() -> None:
    table = synthetic.statistics(50, 0)
    ranks = rank_normalised(table)
    pd.testing.assert_frame_equal(rank_normalised(np.arctan(table / 3) * 7 - 2), ranks)
    pd.testing.assert_frame_equal(rank_normalised(-table), 1 - ranks)


def test_ranks_go_with_their_rows() -> None:
    table = synthetic.statistics(50, 0)
    order = np.random.default_rng(0).permutation(50)
    moved = rank_normalised(table.iloc[order])
    pd.testing.assert_frame_equal(moved, rank_normalised(table).iloc[order])


def test_ranks_among_others_are_shares_below() -> None:
    among = pd.DataFrame({"a": [1.0, 2.0, 2.0, 4.0]})
    new = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0, 9.0]})
    assert list(rank_normalised(new, among)["a"]) == [0.0, 0.125, 0.5, 0.75, 1.0]
    table = synthetic.statistics(50, 0)
    pd.testing.assert_frame_equal(rank_normalised(table, table), rank_normalised(table))
    before = rank_normalised(table.iloc[:5], table)
    pd.testing.assert_frame_equal(before, rank_normalised(table).iloc[:5])
