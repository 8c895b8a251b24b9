"""Learning curves: equal chances for all methods, no label seen before it is predicted."""

import sys
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import quick
import synthetic
from cleansteer.core.records.validation import TableCurve
from cleansteer.predictor.evidence import learning
from cleansteer.predictor.evidence.learning import (
    curve_difference,
    examine_curve,
    learning_curve,
    n_curve_fits,
    summarise_curve,
)
from cleansteer.predictor.evidence.scores import out_of_fold, out_of_fold_interval, spearman
from cleansteer.predictor.evidence.tables import LabelledTable
from cleansteer.predictor.model.baselines import paper_ridge
from cleansteer.predictor.model.blend import blended
from resampled import bootstrapped_spearman

CLOSE = 1e-9  # another order of sums


def nothing(X: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.full(len(new), 3.0)


def prior(X: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    return new[:, 0]


def values(n: int, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    table = synthetic.statistics(n, seed)
    return table.to_numpy(), synthetic.labels(table, noise, seed)["clean_score"].to_numpy()


class Spy:
    """Remembers which rows it was fitted to, by the rows that it was to predict and their number."""

    def __init__(self) -> None:
        self.seen: dict[tuple[float, ...], dict[int, set[float]]] = defaultdict(dict)

    def __call__(self, X: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        assert np.array_equal(X[:, 0], y), "statistics and labels are of the same features"
        rows = set(y)
        assert len(rows) == len(y)
        self.seen[tuple(new[:, 0])][len(y)] = rows
        return -new[:, 0]


@pytest.mark.parametrize("n", [40, 43])
def test_subsets_are_nested_the_same_for_all_and_without_the_held_out_fold(n: int) -> None:
    rows = np.arange(n, dtype=float)
    spies = {"one": Spy(), "other": Spy()}
    curve = learning_curve(spies, rows[:, None], rows, [8, 20, 3], seed=5, repeats=3)
    assert spies["one"].seen == spies["other"].seen
    assert len(spies["one"].seen) == 3 * 5
    for held_out, by_size in spies["one"].seen.items():
        assert set(by_size) == {3, 8, 20}
        assert by_size[3] < by_size[8] < by_size[20] <= set(rows) - set(held_out)
    for predicted in curve.predictions.values():
        np.testing.assert_array_equal(predicted, np.tile(-rows, (3, 1)))
    assert (curve.scores["score"] == -1).all()


def test_repeats_have_their_own_folds_and_each_seed_repeat_and_fold_its_own_order() -> None:
    rows = np.arange(200, dtype=float)

    def places(seed: int) -> dict[tuple[float, ...], tuple[int, ...]]:
        """By held-out fold, where in the list of training rows those of the subset stand."""
        spy = Spy()
        learning_curve({"spy": spy}, rows[:, None], rows, [10], seed, repeats=2)
        return {
            held_out: tuple(np.searchsorted(np.setdiff1d(rows, held_out), sorted(by_size[10])))
            for held_out, by_size in spy.seen.items()
        }

    one, other = places(0), places(50)
    assert one == places(0)
    assert len(one | other) == len({*one.values(), *other.values()}) == 2 * 2 * 5


@pytest.mark.parametrize("name", ["ridge", "ours"])
def test_with_all_labels_it_is_the_plain_cross_validation(name: str) -> None:
    X, y = values(60)
    method = {"ridge": paper_ridge, "ours": blended(0)}[name]
    curve = learning_curve({name: method}, X, y, [30, 1000], seed=4, repeats=3)
    assert curve.sizes == [30, 48]
    for repeat in range(3):
        plain = out_of_fold(method, X, y, seed=4 + repeat)
        np.testing.assert_array_equal(curve.predictions[name, 48][repeat], plain)
        assert not np.array_equal(curve.predictions[name, 30][repeat], plain)
        score = curve.scores.query("n == 48 and repeat == @repeat")["score"].item()
        assert score == spearman(plain, y)


@pytest.mark.parametrize("row", [0, 31])
def test_a_prediction_does_not_depend_on_its_own_label(row: int) -> None:
    X, y = values(50)
    wrong = y.copy()
    wrong[row] += 1000
    before, after = (learning_curve({"r": paper_ridge}, X, v, [10, 40], 0, 2) for v in (y, wrong))
    for cell, predicted in before.predictions.items():
        np.testing.assert_array_equal(after.predictions[cell][:, row], predicted[:, row])
    assert (after.predictions["r", 40] != before.predictions["r", 40]).mean() > 0.7


def test_sizes_are_cut_to_the_smallest_training_fold_and_done_once() -> None:
    X, y = values(43)  # folds of 9, 9, 9, 8, 8
    curve = learning_curve({"r": paper_ridge}, X, y, [500, 10, 34, 35, 10], seed=0, repeats=2)
    assert curve.sizes == [10, 34]
    assert list(curve.scores.columns) == ["method", "n", "repeat", "score"]
    assert len(curve.scores) == 2 * 2
    assert not curve.scores.duplicated(["method", "n", "repeat"]).any()


def test_methods_do_not_disturb_each_other() -> None:
    X, y = values(45)
    together = learning_curve({"nothing": nothing, "r": paper_ridge}, X, y, [12, 30], seed=0)
    alone = learning_curve({"r": paper_ridge}, X, y, [30], seed=0)
    np.testing.assert_array_equal(together.predictions["r", 30], alone.predictions["r", 30])


def test_a_method_that_ignores_labels_has_a_flat_curve() -> None:
    X, y = values(60)
    curve = learning_curve({"nothing": nothing, "prior": prior}, X, y, [5, 20, 48], seed=0)
    summary = summarise_curve(curve, seed=0).set_index("method")
    assert (summary.loc["nothing", ["value", "low", "high"]] == 0).all(axis=None)
    flat = summary.loc["prior", ["value", "low", "high"]].drop_duplicates()
    assert len(flat) == 1
    assert flat["value"].item() == pytest.approx(spearman(X[:, 0], y))
    zero = curve_difference(curve, ("prior", 5), ("prior", 48), seed=0)
    assert zero.value == zero.low == zero.high == 0


def test_a_method_that_learns_rises() -> None:
    X, y = values(250, noise=0.3)
    curve = learning_curve({"r": paper_ridge}, X, y, [8, 30, 200], seed=0, repeats=3)
    means = summarise_curve(curve, seed=0)["value"].to_numpy()
    assert (np.diff(means) > 0).all()
    gain = curve_difference(curve, ("r", 200), ("r", 8), seed=0)
    assert gain.above_zero
    assert gain.value == pytest.approx(means[-1] - means[0])
    loss = curve_difference(curve, ("r", 8), ("r", 200), seed=0)
    assert (loss.value, loss.low, loss.high) == pytest.approx((-gain.value, -gain.high, -gain.low))


def test_intervals_are_those_of_a_plain_bootstrap_widened() -> None:
    X, y = values(50, noise=1.0)
    curve = learning_curve({"r": paper_ridge, "p": prior}, X, y, [20, 40], seed=0, repeats=2)
    draws = np.random.default_rng(9).integers(50, size=(learning.RESAMPLES, 50))
    resampled = {
        cell: np.mean([bootstrapped_spearman(p, y, draws) for p in predicted], axis=0)
        for cell, predicted in curve.predictions.items()
    }
    scores = curve.scores.groupby(["method", "n"])["score"].mean()
    for row in summarise_curve(curve, seed=9).itertuples():
        expected = out_of_fold_interval(scores[row.method, row.n], resampled[row.method, row.n])
        found = (row.value, row.low, row.high)
        assert found == pytest.approx((expected.value, expected.low, expected.high), abs=CLOSE)
    one, other = ("r", 40), ("p", 20)
    difference = curve_difference(curve, one, other, seed=9)
    expected = out_of_fold_interval(
        scores[one] - scores[other], resampled[one] - resampled[other], bound=2.0
    )
    assert difference.low == pytest.approx(expected.low, abs=CLOSE)
    assert difference.high == pytest.approx(expected.high, abs=CLOSE)
    with pytest.raises(KeyError):
        curve_difference(curve, one, ("r", 21), seed=9)


@pytest.mark.parametrize(("sizes", "repeats"), [([], 5), ([0, 5], 5), ([-3], 5), ([5], 0)], ids=str)
def test_nothing_to_do_is_refused(sizes: list[int], repeats: int) -> None:
    X, y = values(30)
    with pytest.raises(ValueError, match=f"{repeats} repeats, expected some of at least 1"):
        learning_curve({"r": paper_ridge}, X, y, sizes, seed=0, repeats=repeats)


def test_labels_of_other_features_are_refused() -> None:
    X, y = values(30)
    with pytest.raises(ValueError, match="30 rows of statistics, 29 labels"):
        learning_curve({"r": paper_ridge}, X, y[:-1], [5], seed=0)


def test_the_curve_of_a_table_and_its_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lead is of ours with all labels over ridge with few, on the same features."""
    quick.cheapen(monkeypatch)
    monkeypatch.setattr(learning, "SIZES", (10, 20, sys.maxsize))
    monkeypatch.setattr(learning, "_FEW", 20)
    statistics = synthetic.statistics(40, 0)
    labels = synthetic.labels(statistics, 0.3, 0)
    done: list[int] = []
    table = LabelledTable("made up", statistics, labels)
    found = examine_curve(table, 3, 2, done.append)
    assert sum(done) == n_curve_fits(table, 2) == 2 * 5 * 3 * 3
    assert TableCurve.model_validate_json(found.to_json()) == found
    assert {point.table for point in found.points} == {"made up"}
    rows = [point.model_dump() for point in found.points]
    points = pd.DataFrame(rows).set_index(["method", "n"])["value"]
    assert sorted(points.index) == sorted(
        (method, n) for method in ("ridge", "boosting", "ours") for n in (10, 20, 32)
    )
    X, y = statistics.to_numpy(), labels["clean_score"].to_numpy()
    few = learning_curve({"ridge": paper_ridge}, X, y, [20], 3, 2)
    assert points["ridge", 20] == few.scores["score"].mean()
    all_ = np.mean([spearman(out_of_fold(blended(3, "clean_score"), X, y, s), y) for s in (3, 4)])
    assert points["ours", 32] == pytest.approx(all_)
    lead = found.lead
    assert (lead.ours, lead.ridge) == (32, 20)
    assert lead.value == pytest.approx(points["ours", 32] - points["ridge", 20])
    assert lead.low < lead.value < lead.high


def test_ridge_and_boosting_see_the_papers_statistics_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What linear response says changes their curves by nothing, and ours."""
    quick.cheapen(monkeypatch)
    monkeypatch.setattr(learning, "SIZES", (sys.maxsize,))
    statistics = synthetic.statistics(40, 0)
    labels = synthetic.labels(statistics, 0.3, 0)
    more = statistics.assign(response_clean_score=labels["clean_score"])
    curves = [
        {point.method: point.value for point in examine_curve(table, 3, 1).points}
        for table in (LabelledTable("t", each, labels) for each in (statistics, more))
    ]
    for method in ("ridge", "boosting"):
        assert curves[0][method] == curves[1][method]
    assert curves[0]["ours"] != curves[1]["ours"]
