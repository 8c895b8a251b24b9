"""The verdict on a ranking, with the figures behind every rule."""

from collections.abc import Mapping
from typing import Any

from ..predictor.models import LEAST_LABELLED
from ..predictor.screening import GROUPS
from ..predictor.targets import AXES, HIGHER_IS_CLEANER
from ..study.screening import fresh_comparison
from .names import name_of
from .records import Figure

RULES = ("Predicts its label", "Beats the better baseline", "Holds on fresh contexts")


def verdict(screening: Mapping[str, Any]) -> dict[str, Any]:
    """Overall, and by axis: the verdict, the rules that failed, and each rule's figure."""
    trust = screening["trust"]
    return {
        "overall": trust["overall"],
        "fresh_check": trust["fresh_check"],
        "rules": RULES,
        "axes": [
            {
                "axis": axis,
                "label": name_of(AXES[axis]),
                "verdict": found["verdict"],
                "reasons": found["reasons"],
                "evidence": _evidence(screening, AXES[axis]),
            }
            for axis, found in trust["axes"].items()
        ],
    }


def _evidence(screening: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    """For every rule what was found, and whether it holds."""
    skill = screening["skill"][measure]
    own, lead = Figure.of(skill["scores"]["ours"]), Figure.of(skill["over_best_baseline"])
    fresh = fresh_comparison(screening["fresh_check"], measure, GROUPS[1])
    side = "above" if HIGHER_IS_CLEANER[measure] else "below"
    enough = skill["n_features"] >= LEAST_LABELLED and not skill["constant"]
    rules = (
        ("out-of-fold Spearman", own, enough and above_zero(own)),
        (f"Spearman over {name_of(skill['best_baseline'])}", lead, enough and above_zero(lead)),
        (
            f"predicted clean minus predicted messy; {side} zero is cleaner",
            Figure.of(fresh["difference"]),
            fresh["cleaner"],
        ),
    )
    return [{"what": what, "figure": figure, "holds": bool(holds)} for what, figure, holds in rules]


def above_zero(figure: Figure) -> bool:
    """Whether the whole interval lies above zero."""
    return figure.low is not None and figure.low > 0
