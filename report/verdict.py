"""The verdict on a ranking, with the figures behind every rule."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.records import Screening
from ..predictor.model.checks import LEAST_FITTED
from ..predictor.model.targets import HIGHER_IS_CLEANER, scheme_for
from .concluded import MESSY
from .names import name_of
from .records import Figure

RULES = ("Predicts its label", "Beats the better baseline", "Holds on fresh contexts")


@dataclass(frozen=True)
class Evidence:
    """The figure behind one rule, and whether the rule holds."""

    what: str
    figure: Figure
    holds: bool


@dataclass(frozen=True)
class AxisCard:
    """The verdict on one axis, with the evidence for each of the :data:`RULES`."""

    axis: str
    label: str
    """The label that stands for the axis, by its name for people."""
    verdict: str
    reasons: Sequence[str]
    evidence: Sequence[Evidence]


@dataclass(frozen=True)
class VerdictCard:
    """The verdict, as the page shows it."""

    overall: str
    fresh_check: bool
    rules: Sequence[str]
    axes: Sequence[AxisCard]


def verdict_card(screening: Screening) -> VerdictCard:
    """Overall, and by axis: the verdict, the rules that failed, and each rule's figure."""
    trust, labels = screening.trust, scheme_for(screening.collateral, screening.mode).axes
    axes = [
        AxisCard(
            axis=axis,
            label=name_of(labels[axis]),
            verdict=judged.verdict,
            reasons=judged.reasons,
            evidence=_evidence(screening, labels[axis]),
        )
        for axis, judged in trust.axes.items()
    ]
    return VerdictCard(trust.overall, trust.fresh_check, RULES, axes)


def _evidence(screening: Screening, measure: str) -> list[Evidence]:
    """The evidence for each rule about a label."""
    skill = screening.skill[measure]
    own, lead = Figure.of(skill.ours), Figure.of(skill.over_best_baseline)
    fresh = screening.fresh_check.comparison(measure, MESSY)
    side = "above" if HIGHER_IS_CLEANER[measure] else "below"
    enough = skill.n_features >= LEAST_FITTED and not skill.constant
    floor = screening.shuffled_floor or 0.0
    return [
        Evidence("out-of-fold Spearman", own, enough and skill.ours.low > floor),
        Evidence(f"Spearman over {name_of(skill.best_baseline)}", lead, enough and lead.above_zero),
        Evidence(
            f"predicted clean minus predicted messy; {side} zero is cleaner",
            Figure.of(fresh.difference),
            bool(fresh.cleaner),
        ),
    ]
