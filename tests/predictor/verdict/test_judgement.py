"""Judgement: every rule can fail alone and is named; chance is not trusted, what is real is."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.records import (
    Comparison,
    FreshCheck,
    Interval,
    LabelJudgement,
    Skill,
    Verdict,
)
from cleansteer.core.records.skill import OURS
from cleansteer.predictor.evidence import validation
from cleansteer.predictor.evidence.examination import FLOOR_QUANTILE, shuffled_scores
from cleansteer.predictor.evidence.scores import out_of_fold
from cleansteer.predictor.evidence.tables import LabelledTable
from cleansteer.predictor.evidence.validation import validate
from cleansteer.predictor.model import blend
from cleansteer.predictor.model.blend import blended
from cleansteer.predictor.model.targets import ABSOLUTE
from cleansteer.predictor.verdict import judge


def span(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high)


ABOVE, AROUND, BELOW = span(0.5, 0.3, 0.7), span(0.1, -0.1, 0.3), span(-0.5, -0.7, -0.3)
STABILITY, COLLATERAL = ABSOLUTE.axes.values()


def skill(
    target: str, score: Interval = ABOVE, lead: Interval = ABOVE, constant: bool = False
) -> Skill:
    return Skill(
        target=target,
        scores={OURS: score},
        over_best_baseline=lead,
        over_ridge=ABOVE,
        best_baseline="freq_only",
        n_features=60,
        constant=constant,
    )


def skills(**changed: object) -> dict[str, Skill]:
    """Both axes as they should be, that of stability with changes."""
    return {STABILITY: skill(STABILITY, **changed), COLLATERAL: skill(COLLATERAL)}  # type: ignore[arg-type]


def check(stability: Interval = ABOVE, collateral: Interval = BELOW) -> FreshCheck:
    """Compared with predicted-messy as given; with random features nothing differs."""
    cleaner = {STABILITY: stability.above_zero, COLLATERAL: collateral.below_zero}
    differences = {STABILITY: stability, COLLATERAL: collateral}
    comparisons = [compared(m, "random", AROUND, False) for m in differences]
    comparisons += [
        compared(m, "predicted_messy", difference, cleaner[m])
        for m, difference in differences.items()
    ]
    return FreshCheck(
        n_contexts=40,
        group_size=8,
        n_training=36,
        n_heldout=24,
        n_matched=20,
        features={},
        means={},
        comparisons=comparisons,
    )


def compared(measure: str, other: str, difference: Interval, cleaner: bool) -> Comparison:
    return Comparison(
        measure=measure, other=other, difference=difference, p_value=0.5, cleaner=cleaner
    )


def verdicts(verdict: Verdict) -> list[str]:
    return [axis.verdict for axis in verdict.axes.values()]


def test_where_every_rule_holds_it_is_trusted() -> None:
    for floor in (None, 0.29):
        for fresh in (None, check()):
            judged = judge(skills(), fresh, floor)
            assert judged.overall == "trusted"
            assert list(judged.axes) == list(ABSOLUTE.axes)
            assert verdicts(judged) == ["trusted"] * 2
            assert all(axis.reasons == [] for axis in judged.axes.values())
            assert judged.fresh_check == (fresh is not None)


@pytest.mark.parametrize(
    ("changed", "fresh", "floor", "reason"),
    [
        ({"score": AROUND}, None, None, "out-of-fold skill is not above zero"),
        (
            {"score": span(0.3, 0.05, 0.5)},
            None,
            0.2,
            "out-of-fold skill is not above what shuffled labels reach (0.20)",
        ),
        ({"lead": AROUND}, None, 0.2, "out-of-fold skill is not above the baseline freq_only"),
        ({"lead": BELOW}, None, None, "out-of-fold skill is not above the baseline freq_only"),
        (
            {},
            check(stability=AROUND),
            0.2,
            "on fresh contexts predicted-clean does not beat predicted-messy",
        ),
        (
            {},
            check(stability=BELOW),
            None,
            "on fresh contexts predicted-clean does not beat predicted-messy",
        ),
        (
            {"constant": True, "score": AROUND, "lead": AROUND},
            check(stability=AROUND),
            0.2,
            "the label is the same for all labelled features: there is nothing to predict",
        ),
    ],
)
def test_every_rule_fails_alone_and_is_named(
    changed: dict[str, object], fresh: FreshCheck | None, floor: float | None, reason: str
) -> None:
    judged = judge(skills(**changed), fresh, floor)
    assert not judged.stability.trusted
    assert judged.stability.reasons == [reason]
    assert judged.collateral.trusted
    assert judged.collateral.reasons == []
    assert judged.overall == "partly"


def test_collateral_is_cleaner_where_it_is_lower() -> None:
    judged = judge(skills(), check(collateral=ABOVE))
    assert verdicts(judged) == ["trusted", "not trusted"]
    assert "fresh contexts" in judged.collateral.reasons[0]


def test_a_limit_must_be_passed_and_not_only_met() -> None:
    score = span(0.3, 0.2, 0.5)
    assert judge(skills(score=score), floor=0.2).overall == "partly"
    assert judge(skills(score=score), floor=0.19).overall == "trusted"
    zero = span(0.3, 0.0, 0.5)
    assert judge(skills(score=zero), floor=-0.5).overall == "partly"
    assert judge(skills(lead=zero)).overall == "partly"


def test_a_floor_below_zero_asks_no_less_than_zero() -> None:
    reasons = judge(skills(score=AROUND), floor=-0.3).stability.reasons
    assert reasons == ["out-of-fold skill is not above zero"]


def test_everything_that_fails_is_named() -> None:
    judged = judge(skills(score=AROUND, lead=AROUND), check(stability=AROUND), 0.2)
    assert len(judged.stability.reasons) == 3


def test_both_one_or_none() -> None:
    good, bad = (lambda t: skill(t)), (lambda t: skill(t, score=AROUND))
    overall = {
        (one, other): judge({STABILITY: first(STABILITY), COLLATERAL: second(COLLATERAL)})
        for one, first in (("good", good), ("bad", bad))
        for other, second in (("good", good), ("bad", bad))
    }
    assert {both: judged.overall for both, judged in overall.items()} == {
        ("good", "good"): "trusted",
        ("good", "bad"): "partly",
        ("bad", "good"): "partly",
        ("bad", "bad"): "not trusted",
    }
    assert verdicts(overall["bad", "good"]) == ["not trusted", "trusted"]


@pytest.mark.parametrize("missing", ABSOLUTE.axes)
def test_an_axis_without_its_label_is_not_trusted(missing: str) -> None:
    present = {t: s for t, s in skills().items() if t != ABSOLUTE.axes[missing]}
    judged = judge(present)
    assert judged.axes[missing].reasons == [f"the label {ABSOLUTE.axes[missing]} is missing"]
    assert not judged.axes[missing].trusted
    assert judged.overall == "partly"
    assert judge({}).overall == "not trusted"


@pytest.mark.parametrize("axis", ABSOLUTE.axes)
def test_a_label_that_cannot_be_used_is_not_trusted_and_a_caveat_is_told(axis: str) -> None:
    label, other = ABSOLUTE.axes[axis], next(a for a in ABSOLUTE.axes if a != axis)
    bad = LabelJudgement(usable=False, reasons=["it does not repeat"], caveats=[])
    odd = LabelJudgement(usable=True, reasons=[], caveats=["any directions do the same"])
    judged = judge(skills(), check(), labels={label: bad, ABSOLUTE.axes[other]: odd})
    assert judged.axes[axis].reasons == [f"the label {label} cannot be used: it does not repeat"]
    assert judged.overall == "partly"
    assert judged.axes[other].trusted
    assert str(judged.axes[other]) == "trusted; any directions do the same"


def test_other_labels_do_not_matter() -> None:
    others = {t: skill(t, score=AROUND) for t in ("clean_score", "effect_l2")}
    assert judge(skills() | others) == judge(skills())


@pytest.fixture
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees and resamples, for time: what is judged is the rules."""
    monkeypatch.setattr(blend, "STAGES", (3, 10, 30))
    monkeypatch.setattr(validation, "RESAMPLES", 400)


def verdict(statistics: pd.DataFrame, labels: pd.DataFrame, seed: int) -> str:
    """As an examination comes to it, with one repeat and three shuffles."""
    table = LabelledTable("made up", statistics, labels)
    X = statistics.to_numpy()
    predictions = pd.DataFrame(
        {t: out_of_fold(blended(seed), X, y.to_numpy(), seed) for t, y in labels.items()},
        index=labels.index,
    )
    skills = validate(statistics, labels, {seed: predictions})
    floor = shuffled_scores(table, seed, 3, lambda _: None)
    return judge(skills, floor=float(np.quantile(floor, FLOOR_QUANTILE))).overall


def made_up(seed: int, noise: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    columns = ["decoder_norm", "final_act_freq", "crowding_max_abs_cos", "direct_logit_l2"]
    table = synthetic.statistics(60, seed)
    labels = synthetic.labels(table, noise, seed)[list(ABSOLUTE.axes.values())]
    return table[columns], labels


@pytest.mark.usefixtures("_cheap")
def test_shuffled_labels_are_not_trusted() -> None:
    judged = []
    for seed in range(20):
        statistics, labels = made_up(seed, 0.3)
        generator = np.random.default_rng(seed)
        shuffled = labels.apply(lambda column, g=generator: g.permutation(column))
        judged.append(verdict(statistics, shuffled, seed))
    assert judged.count("not trusted") >= 19


@pytest.mark.usefixtures("_cheap")
def test_what_the_statistics_tell_is_trusted() -> None:
    """Both labels follow crowding and direct effect, which no baseline sees."""
    statistics, _ = made_up(0, 0.3)
    generator = np.random.default_rng(0)
    told = np.log(statistics[["crowding_max_abs_cos", "direct_logit_l2"]].to_numpy())
    labels = pd.DataFrame(
        told @ [[1.0, 0.5], [-0.5, 1.0]] + 0.3 * generator.normal(size=told.shape),
        index=statistics.index,
        columns=list(ABSOLUTE.axes.values()),
    )
    assert verdict(statistics, labels, 0) == "trusted"
