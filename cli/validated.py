"""What ``cleansteer validate`` tells people."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .figures import SHORT, plain_table, rounded, short, short_interval, skill_table
from .summary import COLOURS, SKILL_KEY

if TYPE_CHECKING:
    from ..core.records.validation import Examination, Transfer, Validation

_SHORT_SETS = {"activation_magnitude_only": "magnitude_only", "activation_shape_only": "shape_only"}
_COUNT = "collateral_count_0.05"
_STRONGEST = 5
_SIGNIFICANT = 0.05


def print_examination(console: Console, examination: "Examination") -> None:
    """One table: skill, floor and ceiling, coverage, sets, controls, verdict."""
    size = (
        f": {examination.n_features} labelled features, {examination.n_statistics} statistics, mean "
        f"of {examination.repeats} x 5 folds"
    )
    console.print(Text.assemble((examination.name, "bold"), size))
    for note in examination.notes:
        _say(console, f"note: {note}")
    ceilings = {target: label.ceiling for target, label in examination.reliability.items()}
    console.print(skill_table(examination.skill, ceilings))
    _say(console, SKILL_KEY)
    for line in _lines(examination):
        _say(console, line)
    console.print(_sets(examination))
    overall = examination.trust.overall
    console.print(
        Text.assemble(
            "Verdict: ",
            (overall, f"bold {COLOURS[overall]}"),
            " by these labels alone (cleansteer screen also checks on fresh contexts)",
        )
    )
    for axis, judged in examination.trust.axes.items():
        _say(console, f"  {axis}: {judged}")
    console.print()


def _lines(examination: "Examination") -> Iterable[str]:
    floor = examination.floor
    if floor.quantile_95 is not None:
        yield (
            f"Floor: shuffled labels reach {floor.quantile_95:.2f} in 95 % of "
            f"{floor.shuffles} shuffles"
        )
    for level, by_target in examination.coverage.items():
        parts = by_target.values()
        yield _covered(level, sum(p.covered for p in parts), sum(p.n for p in parts))
    correlations = examination.partial_rank_correlations.get(_COUNT)
    if correlations is not None:
        kept = [one for one in correlations if one.p_holm < _SIGNIFICANT]
        kept.sort(key=lambda one: -abs(one.rho))
        strongest = ", ".join(
            f"{one.statistic} {one.rho:+.2f} [{one.low:.2f}, {one.high:.2f}]"
            for one in kept[:_STRONGEST]
        )
        yield (
            f"Partial rank correlation with {_COUNT}, {len(kept)} of {len(correlations)} statistics "
            f"with p < {_SIGNIFICANT} (Holm){'; strongest: ' + strongest if strongest else ''}"
        )


def _covered(level: str, covered: int, n: int) -> str:
    return f"Intervals of {level} hold {covered / n:.1%} of {n} labels of unseen features"


def _sets(examination: "Examination") -> Table:
    targets = list(examination.skill)
    residual = examination.residualised["replication"]
    table = _table(
        "Predictor sets: ridge/ours, one repeat; residual: the ridge on count less its\n"
        f"fit on {', '.join(residual.controls)}",
        ("set", *(SHORT.get(target, target) for target in targets), "residual"),
    )
    for name, by_target in examination.sets.items():
        left = residual.sets.get(name, {}).get(_COUNT)
        table.add_row(
            _SHORT_SETS.get(name, name),
            *(f"{short(by_target[t].ridge)}/{short(by_target[t].ours)}" for t in targets),
            "" if left is None else short(left.value, 3),
        )
    return table


def print_overall(console: Console, validation: "Validation") -> None:
    """All tables together: mean over cells, transfer, learning curve."""
    overall = validation.overall
    means = ", ".join(f"{name} {value:.3f}" for name, value in overall.means.items())
    least = overall.least_lead_over_ridge
    _say(
        console,
        f"Mean over {overall.n_cells} cells (table x label): {means}; ours minus ridge is least "
        f"for {least.target} of {least.table}: {least.value:+.3f}",
    )
    for level, every in overall.coverage.items():
        _say(console, _covered(level, every.covered, every.n))
    if validation.transfer is not None:
        console.print(transfer_table(validation.transfer))
    if validation.learning_curve is not None:
        curves = validation.learning_curve
        for name, lead in curves.ours_with_all_minus_ridge_with_few.items():
            ends = ", ".join(rounded(end, 3) for end in (lead.low, lead.high))
            _say(
                console,
                f"Learning curve, {name}, {curves.target}: ours with {lead.ours} labels minus ridge "
                f"with {lead.ridge}: {rounded(lead.value, 3)} [{ends}]",
            )


def transfer_table(transfer: "Transfer") -> Table:
    """Skill of a fit to the other tables, and within each."""
    table = _table(
        "Transfer: Spearman (95 %) of a fit to the other tables that saw no label of this one,\n"
        "and within the table",
        ("table", "label", "transferred", "within"),
    )
    for cell in transfer.cells:
        table.add_row(
            cell.table,
            cell.target,
            short_interval(cell.transferred),
            short(cell.within.value),
        )
    return table


def _table(title: str, headings: Iterable[str]) -> Table:
    table = plain_table(title)
    table.collapse_padding = True
    for heading in headings:
        words = heading in ("label", "set", "table")
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)
