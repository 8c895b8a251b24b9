"""Figures and tables of figures, as the terminal shows them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from ..core.records import Interval, Skill

SHORT = {
    "clean_score": "clean score",
    "stability_abs": "stability",
    "collateral_per_effect": "per effect",
    "collateral_count_0.05": "count",
    "effect_l2": "effect",
}
"""Short names of the targets."""
COLOURS = {"trusted": "green", "partly": "yellow", "not trusted": "red"}
SKILL_KEY = (
    "(ridge: the paper's model; trees: boosting alone; freq., magn.: the ridge on\n"
    "firing rates or activation magnitudes alone; over: ours minus it, or minus the\n"
    "better of the two)"
)
_METHODS = {
    "ridge": "ridge",
    "boosting": "trees",
    "freq_only": "freq.",
    "activation_magnitude_only": "magn.",
}


def skill_table(
    skills: "Mapping[str, Skill]", ceilings: Mapping[str, float] | None = None
) -> Table:
    """Out-of-fold Spearman of ours, plain models and baselines; with the lead over the better
    baseline, or, where the labels' ceilings are given, with these and the lead over the ridge.
    """
    table = plain_table("Skill: out-of-fold Spearman with the label (95 %)")
    table.collapse_padding = True
    leads = ["over freq., magn."] if ceilings is None else ["over ridge", "ceiling"]
    for heading in ("label", "ours", *_METHODS.values(), *leads):
        table.add_column(heading, justify="left" if heading == "label" else "right", no_wrap=True)
    for target, skill in skills.items():
        row = [SHORT.get(target, target), short_interval(skill.ours)]
        row += [short(skill.scores[m].value) if m in skill.scores else "" for m in _METHODS]
        if ceilings is None:
            row.append(short_interval(skill.over_best_baseline))
        else:
            row.append(short_interval(skill.over_ridge))
            row.append(short(ceilings[target]) if target in ceilings else "")
        table.add_row(*row)
    return table


def plain_table(title: str) -> Table:
    """A table without lines."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)


def interval(figure: "Interval", digits: int) -> str:
    """A figure with its interval in brackets."""
    value, low, high = (rounded(end, digits) for end in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def rounded(figure: float, digits: int) -> str:
    """A figure with so many decimals."""
    return f"{round(figure, digits) + 0.0:.{digits}f}"  # no -0.00


def short(figure: float, digits: int = 2) -> str:
    """A correlation without the zero before the point."""
    return rounded(figure, digits).replace("0.", ".", 1)


def short_interval(figure: "Interval") -> str:
    """A correlation with its interval, without zeros before the points."""
    return f"{short(figure.value)} [{short(figure.low)}, {short(figure.high)}]"
