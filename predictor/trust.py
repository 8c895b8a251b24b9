"""Whether a ranking can be believed, by stated rules."""

from collections.abc import Mapping
from typing import Any

from .models import LEAST_LABELLED
from .screening import FreshCheck
from .targets import AXES
from .validation import OURS, Skill

VERDICTS = ("not trusted", "partly", "trusted")


def trust(
    skills: Mapping[str, Skill],
    check: FreshCheck | None = None,
    floor: float | None = None,
) -> dict[str, Any]:
    """The verdict for each axis (stability: stability_abs; collateral: collateral_per_effect) and
    for both: ``trusted`` where both are, ``partly`` where one is, else ``not trusted``.

    An axis is trusted where all of these hold that could be checked:

    - it has at least 30 labelled features, and a label that is not the same for all;
    - the 95 % interval of its out-of-fold Spearman lies above zero and above ``floor``;
    - the 95 % interval of its lead over the better baseline lies above zero;
    - on fresh contexts predicted-clean beats predicted-messy, the 95 % interval excluding zero.

    Args:
        skills: by target.
        check: on fresh contexts, where there was one; without it the last rule is not checked, and
            ``fresh_check`` says so.
        floor: 95 % quantile of the score that shuffled labels reach.

    """
    axes: dict[str, Any] = {}
    for axis, measure in AXES.items():
        if measure not in skills:
            axes[axis] = {"verdict": VERDICTS[0], "reasons": [f"the label {measure} is missing"]}
            continue
        failed = _failures(skills[measure], check, floor)
        axes[axis] = {"verdict": VERDICTS[0] if failed else VERDICTS[-1], "reasons": failed}
    n_trusted = sum(found["verdict"] == VERDICTS[-1] for found in axes.values())
    return {"overall": VERDICTS[n_trusted], "axes": axes, "fresh_check": check is not None}


def _failures(skill: Skill, check: FreshCheck | None, floor: float | None) -> list[str]:
    if skill.constant:
        return ["the label is the same for all labelled features: there is nothing to predict"]
    score = skill.scores[OURS]
    failed = []
    if skill.n_features < LEAST_LABELLED:
        failed.append(
            f"{skill.n_features} labelled features are too few to judge, expected at least "
            f"{LEAST_LABELLED}; label more (--labels)"
        )
    if not score.above_zero:
        failed.append("out-of-fold skill is not above zero")
    elif floor is not None and not score.low > floor:
        failed.append(f"out-of-fold skill is not above what shuffled labels reach ({floor:.2f})")
    if not skill.over_best_baseline.above_zero:
        failed.append(f"out-of-fold skill is not above the baseline {skill.best_baseline}")
    if check is not None and not check.comparison(skill.target).cleaner:
        failed.append("on fresh contexts predicted-clean does not beat predicted-messy")
    return failed
