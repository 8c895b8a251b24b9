"""What ``cleansteer validate`` tells people."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .summary import (
    COLOURS,
    SHORT,
    SKILL_KEY,
    interval,
    plain_table,
    short,
    short_interval,
    skill_table,
)

_SHORT_SETS = {"activation_magnitude_only": "magnitude_only", "activation_shape_only": "shape_only"}
_COUNT = "collateral_count_0.05"
_STRONGEST = 5
_SIGNIFICANT = 0.05


def print_examination(console: Console, found: Mapping[str, Any]) -> None:
    """One table: skill, floor and ceiling, coverage, sets, controls, verdict."""
    size = (
        f": {found['n_features']} labelled features, {found['n_statistics']} statistics, mean of "
        f"{found['repeats']} x 5 folds"
    )
    console.print(Text.assemble((found["name"], "bold"), size))
    for note in found["notes"]:
        _say(console, f"note: {note}")
    console.print(skill_table(found["skill"], found["reliability"]))
    _say(console, SKILL_KEY)
    for line in _lines(found):
        _say(console, line)
    console.print(_sets(found))
    verdict = found["trust"]
    overall = verdict["overall"]
    console.print(
        Text.assemble(
            "Verdict: ",
            (overall, f"bold {COLOURS[overall]}"),
            " by these labels alone (cleansteer screen also checks on fresh contexts)",
        )
    )
    for axis, by_axis in verdict["axes"].items():
        reasons = f" ({'; '.join(by_axis['reasons'])})" if by_axis["reasons"] else ""
        _say(console, f"  {axis}: {by_axis['verdict']}{reasons}")
    console.print()


def _lines(found: Mapping[str, Any]) -> Iterable[str]:
    floor = found["floor"]
    if floor["shuffles"]:
        yield (
            f"Floor: shuffled labels reach {floor['quantile_95']:.2f} in 95 % of "
            f"{floor['shuffles']} shuffles"
        )
    for level, by_target in found["coverage"].items():
        covered, n = (sum(c[key] for c in by_target.values()) for key in ("covered", "n"))
        yield _covered(level, covered, n)
    records = found["partial_rank_correlations"].get(_COUNT)
    if records is not None:
        kept = [record for record in records if record["p_holm"] < _SIGNIFICANT]
        kept.sort(key=lambda record: -abs(record["rho"]))
        told = ", ".join(
            f"{r['statistic']} {r['rho']:+.2f} [{r['low']:.2f}, {r['high']:.2f}]"
            for r in kept[:_STRONGEST]
        )
        yield (
            f"Partial rank correlation with {_COUNT}, {len(kept)} of {len(records)} statistics with "
            f"p < {_SIGNIFICANT} (Holm){'; strongest: ' + told if told else ''}"
        )


def _covered(level: str, covered: int, n: int) -> str:
    return f"Intervals of {level} hold {covered / n:.1%} of {n} labels of unseen features"


def _sets(found: Mapping[str, Any]) -> Table:
    targets = list(found["skill"])
    residual = found["residualised"]["replication"]
    table = _table(
        "Predictor sets: ridge/ours, one repeat; residual: the ridge on count less its\n"
        f"fit on {', '.join(residual['controls'])}",
        ("set", *(SHORT.get(target, target) for target in targets), "residual"),
    )
    for name, by_target in found["sets"].items():
        left = residual["sets"].get(name, {}).get(_COUNT)
        table.add_row(
            _SHORT_SETS.get(name, name),
            *(f"{short(by_target[t]['ridge'])}/{short(by_target[t]['ours'])}" for t in targets),
            "" if left is None else short(left["value"], 3),
        )
    return table


def print_overall(console: Console, result: Mapping[str, Any]) -> None:
    """All tables together: mean over cells, transfer, learning curve."""
    overall = result["overall"]
    means = ", ".join(f"{name} {value:.3f}" for name, value in overall["means"].items())
    least = overall["least_lead_over_ridge"]
    _say(
        console,
        f"Mean over {overall['n_cells']} cells (table x label): {means}; ours minus ridge is least "
        f"for {least['target']} of {least['table']}: {least['value']:+.3f}",
    )
    for level, all_ in overall["coverage"].items():
        _say(console, _covered(level, **all_))
    if "transfer" in result:
        console.print(transfer_table(result["transfer"]))
    if "learning_curve" in result:
        curve = result["learning_curve"]
        for name, lead in curve["ours_with_all_minus_ridge_with_few"].items():
            _say(
                console,
                f"Learning curve, {name}, {curve['target']}: ours with {lead['ours']} labels minus "
                f"ridge with {lead['ridge']}: {interval(lead, 3)}",
            )


def transfer_table(found: Mapping[str, Any]) -> Table:
    """Skill of a fit to the other tables, and within each."""
    table = _table(
        "Transfer: Spearman (95 %) of a fit to the other tables that saw no label of this one,\n"
        "and within the table",
        ("table", "label", "transferred", "within"),
    )
    for cell in found["cells"]:
        table.add_row(
            cell["table"],
            cell["target"],
            short_interval(cell["transferred"]),
            short(cell["within"]["value"]),
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
