"""Trust: every rule can fail alone and is named; chance is not trusted, what is real is."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.predictor import blend, validation
from cleansteer.predictor.blend import blended
from cleansteer.predictor.examination import FLOOR_QUANTILE, shuffled_scores
from cleansteer.predictor.scores import Interval, out_of_fold
from cleansteer.predictor.screening import Comparison, FreshCheck, Groups
from cleansteer.predictor.tables import LabelledTable
from cleansteer.predictor.targets import AXES
from cleansteer.predictor.trust import VERDICTS, trust
from cleansteer.predictor.validation import OURS, Skill, validate

ABOVE, AROUND, BELOW = Interval(0.5, 0.3, 0.7), Interval(0.1, -0.1, 0.3), Interval(-0.5, -0.7, -0.3)
STABILITY, COLLATERAL = AXES.values()


def skill(
    target: str, score: Interval = ABOVE, lead: Interval = ABOVE, constant: bool = False
) -> Skill:
    return Skill(target, {OURS: score}, lead, ABOVE, "freq_only", 60, constant)


def skills(**changed: object) -> dict[str, Skill]:
    """Both axes as they should be, that of stability with changes."""
    return {STABILITY: skill(STABILITY, **changed), COLLATERAL: skill(COLLATERAL)}  # type: ignore[arg-type]


def check(stability: Interval = ABOVE, collateral: Interval = BELOW) -> FreshCheck:
    """Compared with predicted-messy as given; with random features nothing is found."""
    measured = {STABILITY: stability, COLLATERAL: collateral}
    comparisons = [Comparison(m, "random", AROUND, 0.5) for m in measured]
    comparisons += [Comparison(m, "predicted_messy", found, 0.01) for m, found in measured.items()]
    return FreshCheck(40, 8, {}, comparisons, Groups({}, 36, 24, 20))


def verdicts(found: Mapping[str, object]) -> list[str]:
    return [axis["verdict"] for axis in found["axes"].values()]  # type: ignore[attr-defined,index]


def test_where_every_rule_holds_it_is_trusted() -> None:
    for floor in (None, 0.29):
        for fresh in (None, check()):
            found = trust(skills(), fresh, floor)
            assert found["overall"] == "trusted"
            assert found["axes"] == {axis: {"verdict": "trusted", "reasons": []} for axis in AXES}
            assert found["fresh_check"] == (fresh is not None)


@pytest.mark.parametrize(
    ("changed", "fresh", "floor", "reason"),
    [
        ({"score": AROUND}, None, None, "out-of-fold skill is not above zero"),
        (
            {"score": Interval(0.3, 0.05, 0.5)},
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
    found = trust(skills(**changed), fresh, floor)
    assert found["axes"]["stability"] == {"verdict": "not trusted", "reasons": [reason]}
    assert found["axes"]["collateral"] == {"verdict": "trusted", "reasons": []}
    assert found["overall"] == "partly"


def test_collateral_is_cleaner_where_it_is_lower() -> None:
    found = trust(skills(), check(collateral=ABOVE))
    assert verdicts(found) == ["trusted", "not trusted"]
    assert "fresh contexts" in found["axes"]["collateral"]["reasons"][0]


def test_a_limit_must_be_passed_and_not_only_met() -> None:
    score = Interval(0.3, 0.2, 0.5)
    assert trust(skills(score=score), floor=0.2)["overall"] == "partly"
    assert trust(skills(score=score), floor=0.19)["overall"] == "trusted"
    zero = Interval(0.3, 0.0, 0.5)
    assert trust(skills(score=zero), floor=-0.5)["overall"] == "partly"
    assert trust(skills(lead=zero))["overall"] == "partly"


def test_a_floor_below_zero_asks_no_less_than_zero() -> None:
    reasons = trust(skills(score=AROUND), floor=-0.3)["axes"]["stability"]["reasons"]
    assert reasons == ["out-of-fold skill is not above zero"]


def test_everything_that_fails_is_named() -> None:
    found = trust(skills(score=AROUND, lead=AROUND), check(stability=AROUND), 0.2)
    assert len(found["axes"]["stability"]["reasons"]) == 3


def test_both_one_or_none() -> None:
    good, bad = (lambda t: skill(t)), (lambda t: skill(t, score=AROUND))
    overall = {
        (one, other): trust({STABILITY: first(STABILITY), COLLATERAL: second(COLLATERAL)})
        for one, first in (("good", good), ("bad", bad))
        for other, second in (("good", good), ("bad", bad))
    }
    assert {both: found["overall"] for both, found in overall.items()} == {
        ("good", "good"): "trusted",
        ("good", "bad"): "partly",
        ("bad", "good"): "partly",
        ("bad", "bad"): "not trusted",
    }
    assert verdicts(overall["bad", "good"]) == ["not trusted", "trusted"]
    assert VERDICTS == ("not trusted", "partly", "trusted")


@pytest.mark.parametrize("missing", AXES)
def test_an_axis_without_its_label_is_not_trusted(missing: str) -> None:
    present = {t: s for t, s in skills().items() if t != AXES[missing]}
    found = trust(present)
    assert found["axes"][missing] == {
        "verdict": "not trusted",
        "reasons": [f"the label {AXES[missing]} is missing"],
    }
    assert found["overall"] == "partly"
    assert trust({})["overall"] == "not trusted"


def test_other_labels_do_not_matter() -> None:
    others = {t: skill(t, score=AROUND) for t in ("clean_score", "effect_l2")}
    assert trust(skills() | others) == trust(skills())


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
    found = validate(statistics, labels, {seed: predictions})
    floor = shuffled_scores(table, seed, 3, lambda _: None)
    overall: str = trust(found, floor=float(np.quantile(floor, FLOOR_QUANTILE)))["overall"]
    return overall


def made_up(seed: int, noise: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    columns = ["decoder_norm", "final_act_freq", "crowding_max_abs_cos", "direct_logit_l2"]
    table = synthetic.statistics(60, seed)
    labels = synthetic.labels(table, noise, seed)[list(AXES.values())]
    return table[columns], labels


@pytest.mark.usefixtures("_cheap")
def test_shuffled_labels_are_not_trusted() -> None:
    found = []
    for seed in range(20):
        statistics, labels = made_up(seed, 0.3)
        generator = np.random.default_rng(seed)
        shuffled = labels.apply(lambda column, g=generator: g.permutation(column))
        found.append(verdict(statistics, shuffled, seed))
    assert found.count("not trusted") >= 19


@pytest.mark.usefixtures("_cheap")
def test_what_the_statistics_tell_is_trusted() -> None:
    """Both labels follow crowding and direct effect, which no baseline sees."""
    statistics, _ = made_up(0, 0.3)
    generator = np.random.default_rng(0)
    told = np.log(statistics[["crowding_max_abs_cos", "direct_logit_l2"]].to_numpy())
    labels = pd.DataFrame(
        told @ [[1.0, 0.5], [-0.5, 1.0]] + 0.3 * generator.normal(size=told.shape),
        index=statistics.index,
        columns=list(AXES.values()),
    )
    assert verdict(statistics, labels, 0) == "trusted"
