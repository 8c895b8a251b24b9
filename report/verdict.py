"""The verdict on a ranking, with the figures behind every rule."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.records import Screening
from ..predictor.model.checks import LEAST_FITTED
from ..predictor.model.targets import HIGHER_IS_CLEANER, scheme_for
from .concluded import MESSY
from .names import name_of
from .records import Figure

TOLD = (
    "An axis is trusted where all three 95 % intervals lie on the right side of zero, over at least "
    f"{LEAST_FITTED} steered features."
)
TOLD_UNFITTED = (
    "An axis is trusted where both 95 % intervals lie on the right side of zero, and the random group "
    f"has at least {LEAST_FITTED} features."
)
RULES_UNFITTED = ("Agrees with its fresh label", "Holds on fresh contexts")
"""What is asked of a ranking by linear response alone, or of a measured one."""
RULES = ("Predicts its label", "Beats the better baseline", "Holds on fresh contexts")


@dataclass(frozen=True)
class Evidence:
    """The figure behind one rule, and whether the rule holds."""

    what: str
    figure: Figure
    holds: bool


@dataclass(frozen=True)
class AxisCard:
    """The verdict on one axis, with the evidence for each of the rules."""

    axis: str
    label: str
    """The label that stands for the axis, by its name for people."""
    verdict: str
    reasons: Sequence[str]
    """The rules that failed."""
    caveats: Sequence[str]
    """What limits the axis' meaning."""
    evidence: Sequence[Evidence]


@dataclass(frozen=True)
class VerdictCard:
    """The verdict, as the page shows it."""

    overall: str
    fresh_check: bool
    told: str
    """When an axis is trusted, in a sentence."""
    rules: Sequence[str]
    axes: Sequence[AxisCard]


def verdict_card(screening: Screening) -> VerdictCard:
    """Overall, and by axis: the verdict, the rules that failed, and each rule's figure."""
    trust, by_labels = screening.trust, screening.ranked_by == "labels"
    labels = scheme_for(screening.collateral, screening.mode).axes
    evidence = _skill_evidence if by_labels else _forecast_evidence
    axes = [
        AxisCard(
            axis=axis,
            label=name_of(labels[axis]),
            verdict=judged.verdict,
            reasons=judged.reasons,
            caveats=judged.caveats,
            evidence=[*evidence(screening, labels[axis]), _fresh_evidence(screening, labels[axis])],
        )
        for axis, judged in trust.axes.items()
    ]
    told, rules = (TOLD, RULES) if by_labels else (TOLD_UNFITTED, RULES_UNFITTED)
    return VerdictCard(trust.overall, trust.fresh_check, told, rules, axes)


def _skill_evidence(screening: Screening, measure: str) -> list[Evidence]:
    """The evidence for the rules about predictions of a label."""
    skill = screening.skill[measure]
    own, lead = Figure.of(skill.ours), Figure.of(skill.over_best_baseline)
    enough = skill.n_features >= LEAST_FITTED and not skill.constant
    floor = screening.shuffled_floor or 0.0
    return [
        Evidence("out-of-fold Spearman", own, enough and skill.ours.low > floor),
        Evidence(f"Spearman over {name_of(skill.best_baseline)}", lead, enough and lead.above_zero),
    ]


def _forecast_evidence(screening: Screening, measure: str) -> list[Evidence]:
    """The evidence for the rule about a forecast of a label, or about the label itself."""
    check = screening.forecasts
    assert check is not None
    found, enough = Figure.of(check.spearman[measure]), check.n_features >= LEAST_FITTED
    what = f"Spearman over {check.n_features} random features"
    return [Evidence(what, found, enough and found.above_zero)]


def _fresh_evidence(screening: Screening, measure: str) -> Evidence:
    """The evidence for the rule about fresh contexts."""
    fresh = screening.fresh_check.comparison(measure, MESSY)
    side = "above" if HIGHER_IS_CLEANER[measure] else "below"
    return Evidence(
        f"predicted clean minus predicted messy; {side} zero is cleaner",
        Figure.of(fresh.difference),
        bool(fresh.cleaner),
    )
