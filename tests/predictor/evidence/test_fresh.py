"""The fresh check: who is steered, what is compared, and when it is believed."""

import itertools
import json
from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
import oracle
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.core.records import Comparison, FreshCheck, Interval
from cleansteer.predictor.evidence import fresh as fresh_check
from cleansteer.predictor.evidence.fresh import (
    GROUPS,
    MEASURES,
    Groups,
    choose_groups,
    compare_groups,
    is_cleaner,
)
from cleansteer.predictor.model.blend import Blend
from cleansteer.predictor.model.targets import HIGHER_IS_CLEANER
from scipy.stats import binomtest, mannwhitneyu

SIGNIFICANT = 1e-3  # seeds are fixed, so what passes once passes always


class Spy(Blend):
    """The real blend, remembering what it was shown and what it said: clean score, then effect."""

    seen: ClassVar[list["Spy"]] = []

    def fit(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Self:
        self.seen.append(self)
        self.X, self.y = X, y
        return super().fit(X, y, weights)

    def predict(self, X: np.ndarray) -> np.ndarray:
        self.new = X
        self.said = super().predict(X)
        return self.said


class Oracle(Spy):
    """Needs no fitting: two statistics are the predictions."""

    def fit(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Self:
        self.seen.append(self)
        self.X, self.y = X, y
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        self.new = X
        name = "direct_logit_l2" if len(self.seen) % 2 == 0 else "decoder_norm"
        self.said = X[:, synthetic.STATISTICS.index(name)]
        return self.said


def labelled(n: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = synthetic.statistics(n, seed)
    return table, synthetic.labels(table, 0.5, seed).abs()


def rows_of(values: np.ndarray, table: pd.DataFrame) -> list[int]:
    """Features whose statistics these are."""
    by_values = {
        tuple(row): feature for feature, row in zip(table.index, table.to_numpy(), strict=True)
    }
    return [by_values[tuple(row)] for row in values]


def chosen(
    monkeypatch: pytest.MonkeyPatch, blend: type[Spy], n: int, seed: int = 0
) -> tuple[Groups, list[int], np.ndarray, pd.DataFrame]:
    """Groups, the features fitted on, their clean scores, and what was predicted of the others."""
    Spy.seen.clear()
    monkeypatch.setattr(fresh_check, "Blend", blend)
    statistics, labels = labelled(n, seed)
    groups = choose_groups(statistics, labels, seed)
    score, effect = Spy.seen
    fitted = rows_of(score.X, statistics)
    assert rows_of(effect.X, statistics) == fitted
    assert np.array_equal(effect.y, labels.loc[fitted, "effect_l2"])
    assert np.array_equal(effect.new, score.new)
    said = {"clean_score": score.said, "effect_l2": effect.said}
    return groups, fitted, score.y, pd.DataFrame(said, rows_of(score.new, statistics))


@pytest.mark.parametrize(
    ("blend", "n"), [(Spy, 30), (Spy, 200), (Oracle, 31), (Oracle, 400), (Oracle, 900)]
)
def test_groups_are_the_protocols(
    blend: type[Spy], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, fitted, _, predicted = chosen(monkeypatch, blend, n)
    statistics, _ = labelled(n)
    assert len(fitted) == groups.n_training == round(0.6 * n)
    assert len(predicted) == groups.n_heldout == n - groups.n_training
    assert set(fitted) | set(predicted.index) == set(statistics.index)
    assert not set(fitted) & set(predicted.index)

    low, high = np.quantile(predicted["effect_l2"], [0.1, 0.9])
    matched = predicted[(predicted["effect_l2"] >= low) & (predicted["effect_l2"] <= high)]
    assert groups.n_matched == len(matched)
    size = min(50, len(matched) // 3)
    falling = matched["clean_score"].sort_values(ascending=False, kind="stable")
    assert tuple(groups.features) == GROUPS
    members = {name: set(features) for name, features in groups.features.items()}
    assert members["predicted_clean"] == set(falling.index[:size])
    assert members["predicted_messy"] == set(falling.index[-size:])
    assert members["random"] <= set(falling.index[size:-size])
    assert all(len(members[name]) == size > 0 for name in GROUPS)
    assert (size == 50) == (n == 900)
    for features in groups.features.values():
        assert (np.diff(features) > 0).all()


def test_the_model_is_fitted_to_scores_of_its_own_rows_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, fitted, scores, _ = chosen(monkeypatch, Spy, 60)
    own = labelled(60)[1].loc[fitted]
    expected = oracle.zscore_clean_score(
        *(own[c].to_numpy() for c in ("stability_abs", "collateral_count_0.05", "effect_l2"))
    )
    np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_heldout_labels_do_not_matter() -> None:
    """Features are chosen by prediction: what was measured of them changes nothing."""
    statistics, labels = labelled(100)
    before = choose_groups(statistics, labels, 0)
    members = np.concatenate(list(before.features.values()))
    labels.loc[members] = 1000 * labels.loc[members[::-1]].to_numpy()
    after = choose_groups(statistics, labels, 0)
    for name in GROUPS:
        assert np.array_equal(before.features[name], after.features[name])


def test_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    Spy.seen.clear()
    monkeypatch.setattr(fresh_check, "Blend", Oracle)
    one, again, other = (choose_groups(*labelled(200), seed).features for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], again[name]) for name in GROUPS)
    assert not any(np.array_equal(one[name], other[name]) for name in GROUPS)


def test_predicted_clean_is_cleaner_where_labels_can_be_predicted() -> None:
    statistics, labels = labelled(300)
    groups = choose_groups(statistics, labels, 0)
    score = oracle.zscore_clean_score(
        *(labels[c].to_numpy() for c in ("stability_abs", "collateral_count_0.05", "effect_l2"))
    )
    means = {
        name: pd.Series(score, labels.index)[features].mean()
        for name, features in groups.features.items()
    }
    assert means["predicted_messy"] < means["random"] < means["predicted_clean"]


def test_too_few_labels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Spy.seen.clear()
    monkeypatch.setattr(fresh_check, "Blend", Oracle)
    with pytest.raises(InputError, match=r"14 labelled features are too few .* at least 15"):
        choose_groups(*labelled(14), 0)
    assert choose_groups(*labelled(15), 0).n_heldout == 6


def fresh(seed: int, size: int = 40, **shift: float) -> tuple[Groups, pd.DataFrame]:
    """Three groups of one distribution, the first one shifted in some measures."""
    generator = np.random.default_rng(seed)
    features = generator.permutation(10 * size)[: 3 * size]
    table = pd.DataFrame(
        generator.gamma(3.0, size=(3 * size, len(MEASURES))), features, list(MEASURES)
    ).assign(n_contexts=17)
    parts = dict(zip(GROUPS, np.split(features, 3), strict=True))
    for measure, change in shift.items():
        table.loc[parts["predicted_clean"], measure] += change
    return Groups(parts, 180, 120, 3 * size), table.sample(frac=1, random_state=seed)


def interval_covers(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def comparisons(n: int) -> Iterator[Comparison]:
    """Independent comparisons of groups of one distribution, with predicted_messy alone."""
    for seed in range(n):
        for comparison in compare_groups(*fresh(seed), seed).comparisons:
            if comparison.other == "predicted_messy":
                yield comparison


def test_groups_of_one_distribution_are_seldom_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """95 % intervals cover 0 in 95 %, nearly (percentile bootstraps of 40 are a little narrow)."""
    monkeypatch.setattr(fresh_check, "RESAMPLES", 1000)
    found = list(comparisons(80))
    covered = sum(interval_covers(c.difference, 0.0) for c in found)
    significant = sum(c.p_value < 0.05 for c in found)
    cleaner = sum(c.cleaner is True for c in found)
    n_sided = sum(c.cleaner is not None for c in found)
    assert binomtest(covered, len(found), 0.94).pvalue > SIGNIFICANT
    assert binomtest(significant, len(found), 0.05).pvalue > SIGNIFICANT
    assert n_sided == len(found) * len(HIGHER_IS_CLEANER) / len(MEASURES)
    assert binomtest(cleaner, n_sided, 0.03).pvalue > SIGNIFICANT


def test_a_difference_moves_its_interval_and_no_other() -> None:
    plain = compare_groups(*fresh(0), 5)
    moved = compare_groups(*fresh(0, stability_abs=2.0), 5)
    for before, after in zip(plain.comparisons, moved.comparisons, strict=True):
        shift = 2.0 if before.measure == "stability_abs" else 0.0
        for side in ("value", "low", "high"):
            assert getattr(after.difference, side) == pytest.approx(
                getattr(before.difference, side) + shift
            )
        assert (after.p_value < before.p_value) == (shift > 0)


def test_means_and_p_values_are_plain() -> None:
    groups, table = fresh(3, effect_l2=0.7)
    check = compare_groups(groups, table, 0)
    assert (check.n_contexts, check.group_size) == (17, 40)
    for name, measure in itertools.product(GROUPS, MEASURES):
        own = table.loc[groups.features[name], measure]
        assert check.means[name][measure] == pytest.approx(own.mean())
        if name != "predicted_clean":
            comparison = check.comparison(measure, name)
            clean = table.loc[groups.features["predicted_clean"], measure]
            assert comparison.difference.value == pytest.approx(clean.mean() - own.mean())
            assert comparison.p_value == mannwhitneyu(clean, own, alternative="two-sided").pvalue
    assert len(check.comparisons) == 2 * len(MEASURES)


def test_intervals_are_those_of_a_difference_of_means() -> None:
    """Of 40 and 40 features: the normal approximation, to a tenth of its width."""
    groups, table = fresh(4)
    for comparison in compare_groups(groups, table, 0).comparisons:
        parts = [
            table.loc[groups.features[name], comparison.measure]
            for name in ("predicted_clean", comparison.other)
        ]
        half = 1.96 * np.sqrt(sum(part.var(ddof=0) / len(part) for part in parts))
        value = comparison.difference.value
        assert comparison.difference.low == pytest.approx(value - half, abs=0.2 * half)
        assert comparison.difference.high == pytest.approx(value + half, abs=0.2 * half)


ABOVE, AROUND, BELOW = (
    Interval(value=value, low=low, high=high)
    for value, low, high in ((1, 0.5, 2), (0, -1, 1), (-1, -2, -0.5))
)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("stability_abs", (True, False, False)),
        ("collateral_per_effect", (False, False, True)),
        ("collateral_count_0.05", (None, None, None)),
        ("effect_l2", (None, None, None)),
    ],
)
def test_cleaner_is_the_side_that_the_measure_says(
    measure: str, expected: tuple[bool | None, ...]
) -> None:
    assert tuple(is_cleaner(measure, i) for i in (ABOVE, AROUND, BELOW)) == expected


def test_a_check_is_plain_json_and_read_back() -> None:
    groups, table = fresh(0)
    check = compare_groups(groups, table, 0)
    data = json.loads(check.to_json())
    assert data["features"] == {name: f.tolist() for name, f in groups.features.items()}
    for plain, comparison in zip(data["comparisons"], check.comparisons, strict=True):
        assert plain["cleaner"] == comparison.cleaner
        assert comparison.cleaner == is_cleaner(comparison.measure, comparison.difference)
    assert data["comparisons"][0]["difference"].keys() == {"value", "low", "high"}
    assert (check.n_training, check.n_heldout, check.n_matched) == (180, 120, 120)
    assert FreshCheck.model_validate(data) == check


def test_a_group_that_was_not_steered_afresh_is_refused() -> None:
    groups, table = fresh(0)
    missing = groups.features["random"][3]
    with pytest.raises(InputError, match=rf"feature {missing} .* no label on fresh .* \(1 such"):
        compare_groups(groups, table.drop(index=missing), 0)
