"""Controls: labels that repeat themselves, directions that are none, and what statistics say of it."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from cleansteer.core.records import Controls, Interval
from cleansteer.predictor.evidence import controls
from cleansteer.predictor.evidence.controls import (
    CROWDING,
    LABELS,
    against_random_directions,
    reliability,
    residual_space,
    split_half,
    without_dense_panel,
)
from cleansteer.predictor.model import ABSOLUTE, MATCHED, RELATIVE
from scipy.stats import binomtest, pearsonr, rankdata, spearmanr, wilcoxon

SIGNIFICANT = 1e-3  # seeds are fixed, so what passes once passes always
EXACT = 1e-12  # the same ranks in another order of summing
RESAMPLING = 0.05  # an interval's ends, of 2,000 resamples in another order
SIDES = ("value", "low", "high")
EVERY = ("clean_score", *LABELS)
COUNT = "collateral_count_0.05"


@pytest.fixture(params=[0, 1])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def random_labels(n: int, seed: int, index: pd.Index | None = None) -> pd.DataFrame:
    """Labels of features that have nothing to do with each other; counts are whole numbers."""
    generator = np.random.default_rng([seed, 77])
    table = pd.DataFrame(generator.gamma(3.0, size=(n, len(LABELS))), columns=list(LABELS))
    table[COUNT] = generator.poisson(4.0, n)
    return table.set_index(generator.permutation(10 * n)[:n] if index is None else index)


def halves(n: int, seed: int, share: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of the same features, with a share of their values in common."""
    common = random_labels(n, 3 * seed)
    first, second = (
        share * common + (1 - share) * random_labels(n, 3 * seed + other, common.index)
        for other in (1, 2)
    )
    return first, second


@pytest.mark.parametrize("other", [lambda x: x, np.exp, lambda x: x**3 / 7 + 5])
def test_labels_that_repeat_themselves_have_reliability_1(
    other: Callable[[pd.Series], pd.Series], seed: int
) -> None:
    first = random_labels(40, seed)
    second = first.assign(**{name: other(first[name].astype(float)) for name in LABELS})
    found = reliability(first, second, seed)
    assert tuple(found) == EVERY
    for name in LABELS:
        assert [getattr(found[name], side) for side in (*SIDES, "whole")] == pytest.approx(
            [1.0] * 4
        )
    again = reliability(first, first, seed)["clean_score"]
    assert list(again.model_dump().values()) == pytest.approx([1.0] * 4)


def test_labels_that_turn_round_have_none(seed: int) -> None:
    first = random_labels(40, seed)
    found = reliability(first, first.max() - first, seed)
    for name in LABELS:
        assert [getattr(found[name], side) for side in SIDES] == pytest.approx([-1.0] * 3)
        assert found[name].whole == 0.0


def test_a_constant_label_has_none() -> None:
    first, second = halves(40, 0)
    found = reliability(first.assign(effect_l2=1.0), second, 0)["effect_l2"]
    assert list(found.model_dump().values()) == [0.0] * 4


def test_independent_halves_are_seldom_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """95 % intervals cover 0 in 95 %, nearly (percentile bootstraps of 40 are a little narrow)."""
    monkeypatch.setattr(controls, "RESAMPLES", 500)
    every = [reliability(*halves(40, seed), seed) for seed in range(60)]
    found = [one[name] for one in every for name in LABELS]
    covered = sum(one.low <= 0 <= one.high for one in found)
    assert binomtest(covered, len(found), 0.94).pvalue > SIGNIFICANT
    positive = sum(one.value > 0 for one in found)
    assert binomtest(positive, len(found), 0.5).pvalue > SIGNIFICANT


def test_intervals_are_as_wide_as_values_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of halves that have something in common: as wide as 95 % of values of new features."""
    monkeypatch.setattr(controls, "RESAMPLES", 500)
    found = [reliability(*halves(60, seed, 0.5), seed) for seed in range(40)]
    for name in ("effect_l2", COUNT):
        values = [one[name].value for one in found]
        widths = [one[name].high - one[name].low for one in found]
        assert np.median(values) > 0.3
        assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.25)


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_whole_is_the_reliability_of_twice_as_many_contexts(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spearman-Brown: measured here on features with four halves each (ranks know no exp)."""
    monkeypatch.setattr(controls, "RESAMPLES", 2)
    n = 30_000
    generator = np.random.default_rng(5)
    truth = generator.normal(size=(n, len(LABELS)))
    quarters = [
        pd.DataFrame(truth + noise * generator.normal(size=truth.shape), columns=list(LABELS))
        for _ in range(4)
    ]
    half = reliability(np.exp(quarters[0]), np.exp(quarters[1]), 0)
    whole = reliability(*(np.exp(quarters[i] + quarters[i + 1]) for i in (0, 2)), 0)
    for name in LABELS:
        assert half[name].value < whole[name].value - 0.05
        assert half[name].whole == pytest.approx(whole[name].value, abs=0.03)


def test_the_value_alone_is_the_same(seed: int) -> None:
    first, second = halves(40, seed, 0.3)
    for scheme in (ABSOLUTE, RELATIVE, MATCHED):
        found = reliability(first, second, seed, scheme)
        expected = {name: found[name].value for name in scheme.judged}
        assert split_half(first, second, scheme) == expected


def test_labels_that_were_not_measured_are_left_out(seed: int) -> None:
    first, second = halves(40, seed, 0.3)
    kept = [name for name in EVERY if name != "kl_clean_steered"]
    found = reliability(*(half.drop(columns="kl_clean_steered") for half in (first, second)), seed)
    assert found == {name: reliability(first, second, seed)[name] for name in kept}
    random, statistics = second.drop(columns="kl_clean_steered"), statistics_of(first, seed)
    compared = against_random_directions(first[random.columns], random, statistics, seed)
    assert list(compared.labels) == [name for name in LABELS if name in kept]


def test_the_order_of_features_changes_nothing(seed: int) -> None:
    first, second = halves(50, seed, 0.4)
    order = np.random.default_rng(seed).permutation(50)
    plain = reliability(first, second, seed)
    moved = reliability(first.iloc[order], second.iloc[order], seed)
    for name in EVERY:
        for side, tolerance in (("value", EXACT), ("whole", EXACT), ("low", RESAMPLING)):
            assert getattr(moved[name], side) == pytest.approx(
                getattr(plain[name], side), abs=tolerance
            )


def test_which_half_is_the_first_changes_nothing(seed: int) -> None:
    first, second = halves(50, seed, 0.4)
    plain, turned = reliability(first, second, seed), reliability(second, first, seed)
    for name in EVERY:
        assert turned[name].model_dump() == pytest.approx(plain[name].model_dump(), abs=EXACT)


def test_the_seed_is_of_the_intervals_alone() -> None:
    plain, again, other = (reliability(*halves(50, 0, 0.4), seed) for seed in (0, 0, 1))
    assert plain == again
    for name in EVERY:
        assert plain[name].value == other[name].value
        assert plain[name].low != other[name].low


def test_reliabilities_are_scipys(seed: int) -> None:
    first, second = halves(50, seed, 0.4)
    found = reliability(first, second, seed)
    for name in LABELS:
        expected = spearmanr(first[name], second[name]).statistic
        assert found[name].value == pytest.approx(expected)
        assert found[name].low < expected < found[name].high


def test_the_clean_score_of_a_half_is_made_of_that_half(seed: int) -> None:
    first, second = halves(50, seed, 0.4)

    def score(half: pd.DataFrame) -> np.ndarray:
        burden = np.log1p(half[COUNT]) / half["effect_l2"]
        return (
            (half["stability_abs"] - half["stability_abs"].mean()) / half["stability_abs"].std()
            - (burden - burden.mean()) / burden.std()
        ).to_numpy()

    expected = spearmanr(score(first), score(second)).statistic
    assert reliability(first, second, seed)["clean_score"].value == pytest.approx(expected)


@pytest.mark.parametrize(
    "other",
    [
        lambda table: table.iloc[::-1],
        lambda table: table.iloc[1:],
        lambda table: table.set_index(table.index + 1),
    ],
    ids=["reversed", "fewer", "renamed"],
)
def test_halves_of_other_features_are_refused(
    other: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    first, second = halves(20, 0)
    with pytest.raises(ValueError, match="not of the same features in the same order"):
        reliability(first, other(second), 0)


def statistics_of(labels: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Crowding of these features and of others, in an order of its own; it follows the count."""
    generator = np.random.default_rng([seed, 5])
    ranks = rankdata(labels[COUNT]) / len(labels)
    own = pd.DataFrame({CROWDING: ranks + 0.5 * generator.normal(size=len(labels))}, labels.index)
    others = pd.DataFrame({CROWDING: generator.random(9)}, -1 - np.arange(9))
    return pd.concat([own, others]).sample(frac=1, random_state=seed)


def paired(n: int, seed: int, shift: float = 0.0) -> tuple[pd.DataFrame, ...]:
    """Labels of n features and more, of random directions in some of their places, statistics."""
    labels = random_labels(n + 20, seed).astype(float)
    places = labels.index[np.sort(np.random.default_rng(seed).permutation(n + 20)[:n])]
    noise = np.random.default_rng([seed, 9]).normal(size=(n, len(LABELS)))
    random = (labels.loc[places] - shift + noise).sample(frac=1, random_state=seed)
    return labels, random, statistics_of(labels, seed)


def test_directions_like_the_features_differ_in_nothing(seed: int) -> None:
    labels, random, statistics = paired(40, seed)
    same = labels.loc[random.index]
    found = against_random_directions(labels, same, statistics, seed)
    assert found.n_features == 40
    for name in LABELS:
        compared = found.labels[name]
        assert compared.features == compared.random
        assert compared.features == pytest.approx(same[name].mean())
        assert compared.difference == Interval(value=0, low=0, high=0)
        assert compared.p_value == 1.0
    crowding = found.crowding_and_collateral_count
    assert crowding["features"] == crowding["random"]


def test_a_shift_is_found_with_its_size(seed: int) -> None:
    found = against_random_directions(*paired(60, seed, shift=1.5), seed).labels
    for compared in found.values():
        difference = compared.difference
        assert difference.low < difference.value < difference.high
        assert difference.low < 1.5 < difference.high
        assert difference.low > 0
        assert compared.p_value < SIGNIFICANT
        assert compared.features - compared.random == pytest.approx(difference.value)


def test_a_shift_moves_its_interval_and_no_other(seed: int) -> None:
    labels, random, statistics = paired(40, seed)
    plain = against_random_directions(labels, random, statistics, seed)
    moved = against_random_directions(
        labels, random.assign(effect_l2=random["effect_l2"] - 2.0), statistics, seed
    )
    for name in LABELS:
        shift = 2.0 if name == "effect_l2" else 0.0
        before, after = (one.labels[name].difference for one in (plain, moved))
        for side in SIDES:
            assert getattr(after, side) == pytest.approx(getattr(before, side) + shift)
    assert moved.crowding_and_collateral_count == plain.crowding_and_collateral_count


def test_directions_that_differ_in_nothing_are_seldom_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """95 % intervals cover 0 in 95 %, nearly (percentile bootstraps of 40 are a little narrow)."""
    monkeypatch.setattr(controls, "RESAMPLES", 500)
    found = [
        compared
        for seed in range(60)
        for compared in against_random_directions(*paired(40, seed), seed).labels.values()
    ]
    covered = sum(one.difference.low <= 0 <= one.difference.high for one in found)
    significant = sum(one.p_value < 0.05 for one in found)
    assert binomtest(covered, len(found), 0.94).pvalue > SIGNIFICANT
    assert binomtest(significant, len(found), 0.05).pvalue > SIGNIFICANT


def test_pairs_are_of_one_feature_whatever_the_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controls, "RESAMPLES", 4000)
    labels, random, statistics = paired(40, seed, shift=0.3)
    plain = against_random_directions(labels, random, statistics, seed)
    moved = against_random_directions(
        labels.iloc[::-1], random, statistics.sample(frac=1, random_state=9), seed
    )
    assert moved == plain
    turned = against_random_directions(labels, random.iloc[::-1], statistics, seed)
    for name in LABELS:
        one, other = plain.labels[name], turned.labels[name]
        assert other.p_value == pytest.approx(one.p_value)
        assert other.difference.value == pytest.approx(one.difference.value)
        width = one.difference.high - one.difference.low
        for side in SIDES:
            assert getattr(other.difference, side) == pytest.approx(
                getattr(one.difference, side), abs=0.1 * width
            )


def test_differences_and_p_values_are_plain(seed: int) -> None:
    labels, random, statistics = paired(40, seed, shift=0.2)
    found = against_random_directions(labels, random, statistics, seed).labels
    for name in LABELS:
        difference = np.array([labels.loc[f, name] - random.loc[f, name] for f in random.index])
        assert found[name].difference.value == pytest.approx(difference.mean())
        assert found[name].p_value == pytest.approx(wilcoxon(difference).pvalue)
        half = 1.96 * difference.std() / np.sqrt(40)
        for side, sign in (("low", -1), ("high", 1)):
            expected = difference.mean() + sign * half
            assert getattr(found[name].difference, side) == pytest.approx(expected, abs=0.25 * half)


def test_crowding_correlates_as_scipy_says(seed: int) -> None:
    labels, random, statistics = paired(50, seed)
    found = against_random_directions(labels, random, statistics, seed)
    crowding = statistics.loc[random.index, CROWDING]
    tables = {"features": labels.loc[random.index], "random": random}
    for who, table in tables.items():
        expected = spearmanr(crowding, table[COUNT]).statistic
        interval = found.crowding_and_collateral_count[who]
        assert interval.value == pytest.approx(expected)
        assert interval.low < expected < interval.high
    assert found.crowding_and_collateral_count["features"].low > 0


def test_dense_features_left_out() -> None:
    labels = pd.DataFrame(
        {COUNT: [3.0, 10.0, 5.0, 0.5], "collateral_count_0.05_sparse": [2.0, 3.0, 5.0, 0.5]}
    )
    assert without_dense_panel(labels, 60, 7).model_dump() == {
        "n_panel": 60,
        "n_dense": 7,
        "mean_count": 4.625,
        "mean_count_without": 2.625,
        "spearman": pytest.approx(0.8),  # ranks 2 4 3 1 and 2 3 4 1: 1 - 6 * 2 / (4 * 15)
    }
    nothing_dense = labels.assign(**{"collateral_count_0.05_sparse": labels[COUNT]})
    assert without_dense_panel(nothing_dense, 60, 0).spearman == pytest.approx(1.0)
    silent = labels.assign(**{"collateral_count_0.05_sparse": 0.0})
    assert without_dense_panel(silent, 60, 60).spearman == 0.0


def test_residual_space(seed: int) -> None:
    labels = random_labels(30, seed).assign(
        resid_explained=np.random.default_rng(seed).random(30) - 0.2
    )
    found = residual_space(labels)
    ranks = [rankdata(labels[name]) for name in ("resid_delta_norm", COUNT)]
    assert found.mean_resid_delta_norm == pytest.approx(np.mean(labels["resid_delta_norm"]))
    assert found.mean_resid_explained == pytest.approx(np.mean(labels["resid_explained"]))
    assert found.spearman_with_collateral_count == pytest.approx(pearsonr(*ranks).statistic)
    unexplained = residual_space(labels.drop(columns="resid_explained"))
    assert unexplained == found.model_copy(update={"mean_resid_explained": None})
    repeated = labels.assign(**{COUNT: np.exp(labels["resid_delta_norm"])})
    assert residual_space(repeated).spearman_with_collateral_count == pytest.approx(1.0)


def test_controls_are_strict_json_and_read_back() -> None:
    labels, random, statistics = paired(30, 0)
    controls = Controls(
        reliability=reliability(*halves(30, 0), 0),
        random_directions=against_random_directions(labels, random, statistics, 0),
        dense_panel=without_dense_panel(
            labels.assign(**{"collateral_count_0.05_sparse": labels[COUNT] / 2}), 60, 7
        ),
        residual_space=residual_space(labels),
    )
    assert Controls.model_validate_json(controls.to_json()) == controls
