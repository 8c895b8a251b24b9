"""What ``cleansteer validate`` tells people."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .summary import COLOURS, interval, plain_table, short, short_interval

_METHODS = {
    "ridge": "ridge",
    "boosting": "trees",
    "freq_only": "freq.",
    "activation_magnitude_only": "magn.",
}
_SHORT_SETS = {"activation_magnitude_only": "magnitude_only", "activation_shape_only": "shape_only"}
_SHORT = {
    "clean_score": "clean",
    "stability_abs": "stability",
    "collateral_per_effect": "per effect",
    "collateral_count_0.05": "count",
    "effect_l2": "effect",
}
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
    console.print(_skill(found))
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


def _skill(found: Mapping[str, Any]) -> Table:
    headings = ("label", "ours", *_METHODS.values(), "over ridge", "ceiling")
    table = _table("Out-of-fold Spearman (95 % over features)", headings)
    for target, skill in found["skill"].items():
        scores = skill["scores"]
        ceiling = found["reliability"].get(target, {}).get("ceiling")
        table.add_row(
            _SHORT.get(target, target),
            short_interval(scores["ours"]),
            *(short(scores[m]["value"]) if m in scores else "" for m in _METHODS),
            short_interval(skill["over_ridge"]),
            "" if ceiling is None else short(ceiling),
        )
    return table


def _lines(found: Mapping[str, Any]) -> Iterable[str]:
    floor = found["floor"]
    if floor["shuffles"]:
        yield (
            f"Floor: shuffled labels reach {floor['quantile_95']:.2f} in 95 % of "
            f"{floor['shuffles']} shuffles"
        )
    for level, by_target in found["coverage"].items():
        covered, n = (sum(c[key] for c in by_target.values()) for key in ("covered", "n"))
        yield f"Intervals of {level} hold {covered / n:.1%} of {n} labels of unseen features"
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


def _sets(found: Mapping[str, Any]) -> Table:
    targets = list(found["skill"])
    residual = found["residualised"]["replication"]
    table = _table(
        "Predictor sets: ridge/ours; residual: ridge on collateral count less its fit on\n"
        f"{', '.join(residual['controls'])}",
        ("set", *(_SHORT.get(target, target) for target in targets), "residual"),
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
    if "transfer" in result:
        table = _table(
            "Transfer: Spearman (95 %) of a fit to the other tables that saw no label of this one,\n"
            "and within the table",
            ("table", "label", "transferred", "within"),
        )
        for cell in result["transfer"]["cells"]:
            table.add_row(
                cell["table"],
                cell["target"],
                short_interval(cell["transferred"]),
                short(cell["within"]["value"]),
            )
        console.print(table)
    if "learning_curve" in result:
        curve = result["learning_curve"]
        for name, lead in curve["ours_with_all_minus_ridge_with_few"].items():
            _say(
                console,
                f"Learning curve, {name}, {curve['target']}: ours with {lead['ours']} labels minus "
                f"ridge with {lead['ridge']}: {interval(lead, 3)}",
            )


def _table(title: str, headings: Iterable[str]) -> Table:
    table = plain_table(title)
    table.collapse_padding = True
    for heading in headings:
        words = heading in ("label", "set", "table")
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)
