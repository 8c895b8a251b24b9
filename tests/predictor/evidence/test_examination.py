"""Examination: a record that is written and read, repeatable, and blind to what it must not see."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import quick
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.core.records import Interval, Skill
from cleansteer.core.records.validation import Coverage, Examination
from cleansteer.predictor.evidence import examination
from cleansteer.predictor.evidence.examination import (
    LEVELS,
    coverage,
    examine,
    mean_over_cells,
    n_steps,
    reliability_of,
    sets_of,
    shuffled_scores,
    side_by_side,
    targets_of,
)
from cleansteer.predictor.evidence.scores import out_of_fold, spearman
from cleansteer.predictor.evidence.tables import LabelledTable
from cleansteer.predictor.model import blend
from cleansteer.predictor.model.baselines import paper_ridge
from cleansteer.predictor.model.models import ModularityPredictor

INNER = blend.inner_predictions
AXES = ["stability_abs", "collateral_per_effect"]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.cheapen(monkeypatch)


def made_up(n: int = 40, seed: int = 0, targets: list[str] = AXES) -> LabelledTable:
    statistics = synthetic.statistics(n, seed)[["decoder_norm", "final_act_freq", "final_act_mean"]]
    labels = synthetic.labels(synthetic.statistics(n, seed), 0.5, seed)[targets]
    labels = 1 / (1 + np.exp(-labels))  # within the bounds of every label
    return LabelledTable("made up", statistics, labels, None, ["a note"])


class Counter:
    def __init__(self) -> None:
        self.done: list[int] = []

    def __call__(self, done: int) -> None:
        self.done.append(done)


@pytest.fixture(scope="module")
def record() -> Examination:
    with pytest.MonkeyPatch.context() as patch:
        quick.cheapen(patch)
        return examine(made_up(), seed=0, repeats=1, shuffles=2)


@pytest.mark.parametrize(("repeats", "shuffles"), [(1, 0), (2, 1)])
def test_steps_are_as_many_as_announced(repeats: int, shuffles: int) -> None:
    table, tick = made_up(targets=AXES[:1]), Counter()
    examine(table, 0, repeats, shuffles, tick)
    assert sum(tick.done) == n_steps(table, repeats, shuffles)


KEYS = [
    "format",
    "name",
    "n_features",
    "n_statistics",
    "notes",
    "seed",
    "repeats",
    "skill",
    "floor",
    "reliability",
    "coverage",
    "sets",
    "residualised",
    "partial_rank_correlations",
    "trust",
]


def test_the_record_is_strict_json_with_every_part(record: Examination, tmp_path: Path) -> None:
    record.write(tmp_path / "validation.json")
    assert Examination.read(tmp_path / "validation.json") == record
    plain = json.loads((tmp_path / "validation.json").read_text("utf-8"))
    assert list(plain) == KEYS
    assert plain["format"] == "cleansteer-validation/1"
    assert record.name == "made up"
    assert (record.n_features, record.n_statistics) == (40, 3)
    assert record.notes == ["a note"]
    assert (record.seed, record.repeats) == (0, 1)
    assert list(record.skill) == list(record.partial_rank_correlations) == AXES
    assert list(record.sets) == list(record.residualised["replication"].sets)
    assert list(record.sets) == list(sets_of(made_up()))
    assert list(record.coverage) == ["80%", "90%"]
    assert record.floor.shuffles == len(record.floor.scores) == 2
    assert record.floor.quantile_95 == np.quantile(record.floor.scores, 0.95)
    assert record.reliability == {}
    assert set(record.trust.axes) == {"stability", "collateral"}


def test_a_record_of_another_version_is_refused(record: Examination, tmp_path: Path) -> None:
    path = tmp_path / "validation.json"
    path.write_text(record.to_json().replace("validation/1", "validation/2"), "utf-8")
    with pytest.raises(InputError, match=r"'cleansteer-validation/2', expected .*; validate anew"):
        Examination.read(path)


def test_the_same_seed_gives_the_same_record_another_another(record: Examination) -> None:
    again, other = (examine(made_up(), seed, 1, 2) for seed in (0, 1))
    assert again == record
    for part in ("skill", "floor", "coverage", "sets", "residualised"):
        assert getattr(other, part) != getattr(record, part)


def test_the_parts_are_of_the_same_folds_and_predictions(record: Examination) -> None:
    """Ours is the predictor's out-of-fold skill; on all statistics and one repeat, also that of the
    sets side by side.
    """
    table = made_up()
    predictor = ModularityPredictor(AXES, 0).fit(table.statistics, table.labels)
    for target in AXES:
        y = table.labels[target].to_numpy()
        ours = record.skill[target].ours.value
        assert ours == pytest.approx(spearman(predictor.out_of_fold_[target].to_numpy(), y))
        assert record.sets["full_all"][target].ours == pytest.approx(ours, abs=0.02)
        ridge = out_of_fold(paper_ridge, table.statistics.to_numpy(), y, 0)
        assert record.sets["full_all"][target].ridge == pytest.approx(spearman(ridge, y))


def test_without_shuffles_there_is_no_floor() -> None:
    found = examine(made_up(targets=AXES[:1]), 0, 1, 0)
    assert found.floor.model_dump() == {"shuffles": 0, "scores": [], "quantile_95": None}
    assert json.loads(found.to_json())["floor"]["quantile_95"] is None


def test_repeats_are_averaged_over_their_own_folds() -> None:
    table = made_up(targets=AXES[:1])
    one, two, both = (
        examine(table, seed, repeats, 0).skill[AXES[0]].ours.value
        for seed, repeats in ((0, 1), (1, 1), (0, 2))
    )
    assert one != two
    assert both == pytest.approx((one + two) / 2)


class Spy(ModularityPredictor):  # type: ignore[misc]
    """Remembers whose labels it was fitted to and whose intervals it was asked for."""

    seen: list[tuple[set[int], pd.DataFrame]] = []  # noqa: RUF012

    def fit(self, X: pd.DataFrame, Y: pd.DataFrame, tick: Any = None) -> "Spy":
        self.known = set(Y.index)
        assert X.index.equals(Y.index)
        super().fit(X, Y, tick)
        return self

    def predict_interval(self, X: pd.DataFrame, *others: Any, **more: Any) -> pd.DataFrame:
        found = super().predict_interval(X, *others, **more)
        self.seen.append((self.known, found))
        return found


def test_coverage_is_of_features_whose_labels_no_model_has_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examination, "ModularityPredictor", Spy)
    monkeypatch.setattr(Spy, "seen", [])
    table = made_up(targets=AXES[:1])
    found = coverage(table, 0, lambda _: None)
    everyone = set(table.labels.index)
    assert len(Spy.seen) == 5 * len(LEVELS)
    for known, asked in Spy.seen:
        assert not known & set(asked.index)
        assert known | set(asked.index) == everyone
    for place, level in enumerate(found):
        ends = pd.concat([asked for _, asked in Spy.seen[place :: len(LEVELS)]])
        assert sorted(ends.index) == sorted(everyone)
        y = table.labels.loc[ends.index, AXES[0]]
        inside = y.between(ends[AXES[0], "low"], ends[AXES[0], "high"])
        width = (ends[AXES[0], "high"] - ends[AXES[0], "low"]).mean()
        assert found[level][AXES[0]].covered == inside.sum()
        assert found[level][AXES[0]].n == 40
        assert found[level][AXES[0]].mean_width == pytest.approx(width)


def test_a_held_out_label_changes_no_interval_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "ModularityPredictor", Spy)
    table = made_up(targets=AXES[:1])
    feature = table.labels.index[7]
    wrong = table.labels.copy()
    wrong.loc[feature] = 1000.0
    ends = []
    for labels in (table.labels, wrong):
        monkeypatch.setattr(Spy, "seen", [])
        coverage(LabelledTable("t", table.statistics, labels), 0, lambda _: None)
        ends.append([asked.loc[feature] for _, asked in Spy.seen if feature in asked.index])
    assert len(ends[0]) == len(LEVELS)
    for before, after in zip(*ends, strict=True):
        pd.testing.assert_series_equal(before, after, check_exact=True)


def test_wider_intervals_hold_more(record: Examination) -> None:
    less, more = record.coverage.values()
    for target in AXES:
        assert less[target].mean_width < more[target].mean_width
        assert less[target].covered <= more[target].covered


def test_shuffled_labels_score_between_the_lean_of_a_mean_and_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The labels themselves can be predicted. Shuffled they cannot, and what is left is the mean of
    the training rows, which is low where the held-out fold is high: so scores lean to the negative,
    no further than those of that mean alone.
    """
    monkeypatch.setattr(blend, "inner_predictions", INNER)
    table = made_up(60, targets=AXES[:1])
    table.labels[AXES[0]] = np.log(table.statistics["final_act_freq"])
    scores = shuffled_scores(table, 0, 24, lambda _: None)
    assert len(scores) == len(set(scores)) == 24
    y = table.labels[AXES[0]].to_numpy()
    lean = []
    for shuffle in range(24):
        other = np.random.default_rng(shuffle).permutation(y)
        means = out_of_fold(
            lambda X, y, new: np.full(len(new), y.mean()), y[:, None], other, shuffle
        )
        lean.append(spearman(means, other))
    error = 3 * scores.std() / np.sqrt(24)
    assert np.mean(lean) - error < scores.mean() < error
    assert 0.05 < scores.std() < 0.3
    assert scores.min() < 0 < scores.max()
    again = shuffled_scores(table, 0, 3, lambda _: None)
    np.testing.assert_array_equal(again, scores[:3])
    assert set(shuffled_scores(table, 1, 3, lambda _: None)).isdisjoint(again)


def test_sets_hold_their_own_statistics_alone() -> None:
    table = made_up(targets=AXES[:1])
    found = side_by_side(table, 0, lambda _: None)
    assert set(found) == {
        "freq_only",
        "activation_magnitude_only",
        "geometry_only",
        "full_no_magnitude",
        "full_all",
    }
    other = table.statistics.assign(decoder_norm=np.arange(40.0))
    changed = side_by_side(LabelledTable("t", other, table.labels), 0, lambda _: None)
    same = [name for name in found if found[name] == changed[name]]
    assert same == ["freq_only", "activation_magnitude_only"]


def test_targets_are_those_that_the_table_has() -> None:
    table = made_up(targets=["effect_l2", "clean_score"])
    assert targets_of(table) == ["clean_score", "effect_l2"]
    labels = table.labels.assign(kl_clean_steered=1.0)
    assert targets_of(LabelledTable("t", table.statistics, labels)) == ["clean_score", "effect_l2"]


def test_a_target_is_not_residualised_on_itself_nor_partialled() -> None:
    table = made_up(targets=["effect_l2", "stability_abs"])
    found = examination.residualised(table, 0)["replication"]
    assert found.controls == ["effect_l2", "final_act_mean", "final_act_freq"]
    assert all(list(by_target) == ["stability_abs"] for by_target in found.sets.values())
    records = examination.partial(table, 0)
    for target in table.labels:
        assert [r.statistic for r in records[target]] == ["decoder_norm"]


def test_the_ceiling_is_the_root_of_the_reliability() -> None:
    table = made_up(targets=["effect_l2"])
    published = reliability_of(table, 0, {"effect_l2": 0.6})["effect_l2"]
    assert published.published == 0.6
    assert list(published.model_dump()) == ["published", "whole", "ceiling"]
    assert published.whole == pytest.approx(0.75), "two halves make a whole (Spearman, Brown)"
    assert published.ceiling == pytest.approx(np.sqrt(0.75))
    generator = np.random.default_rng(0)
    names = ["stability_abs", "collateral_count_0.05", "effect_l2"]
    one = pd.DataFrame(generator.random((40, 3)), columns=names)
    halves = (one, one + 0.1 * generator.random((40, 3)))
    found = reliability_of(
        LabelledTable("t", table.statistics, table.labels, halves), 0, {"effect_l2": 0.1}
    )
    for by_target in found.values():
        assert by_target.ceiling == pytest.approx(np.sqrt(by_target.whole))
        assert 0.9 < by_target.ceiling <= 1
        assert list(by_target.model_dump()) == ["value", "low", "high", "whole", "ceiling"]


def test_a_label_that_is_the_same_for_all_is_a_verdict() -> None:
    table = made_up()
    labels = table.labels.assign(stability_abs=0.25)
    found = examine(LabelledTable("t", table.statistics, labels), 0, 1, 1)
    json.loads(found.to_json())
    (reason,) = found.trust.stability.reasons
    assert reason.startswith("the label is the same for all")


def test_means_are_over_cells_and_the_least_lead_is_named(record: Examination) -> None:
    def at(value: float) -> Interval:
        return Interval(value=value, low=value - 0.1, high=value + 0.1)

    def cell(target: str, ours: float, ridge: float, **more: float) -> Skill:
        scores = {"ours": ours, "ridge": ridge, "freq_only": 0.9, **more}
        return Skill(
            target=target,
            scores={name: at(value) for name, value in scores.items()},
            over_best_baseline=at(0.0),
            over_ridge=at(ours - ridge),
            best_baseline="freq_only",
            n_features=40,
            constant=False,
        )

    def table(name: str, *cells: Skill, **covered: tuple[int, int]) -> Examination:
        parts = {
            target: Coverage(covered=held, n=n, mean_width=1.0)
            for target, (held, n) in covered.items()
        }
        skills = {cell.target: cell for cell in cells}
        return record.model_copy(update={"name": name, "skill": skills, "coverage": {"90%": parts}})

    one = table(
        "one",
        cell("a", 0.5, 0.3, boosting=0.1),
        cell("b", 0.4, 0.5, boosting=0.1),
        a=(8, 10),
        b=(9, 10),
    )
    two = table("two", cell("a", 0.9, 0.1, boosting=0.1), a=(40, 50))
    overall = mean_over_cells([one, two])
    assert overall.n_cells == 3
    assert {level: (c.covered, c.n) for level, c in overall.coverage.items()} == {"90%": (57, 70)}
    assert overall.means == pytest.approx({"ours": 0.6, "ridge": 0.3, "boosting": 0.1})
    least = overall.least_lead_over_ridge
    assert (least.table, least.target) == ("one", "b")
    assert least.value == pytest.approx(-0.1)
    without = table("two", cell("a", 0.9, 0.1), a=(40, 50))
    assert set(mean_over_cells([one, without]).means) == {"ours", "ridge"}
