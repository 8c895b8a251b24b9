"""What ``cleansteer audit`` shows of several adapters in a terminal: how features moved."""

from pathlib import Path

from rich.console import Console

from ..core.records.movement import MovedAdapter, MovedFeature, MovementRecord
from .audited import print_audit, say
from .figures import named_table

_COLUMNS = 8
"""Parameters that a row has room for."""


def print_movement(console: Console, found: MovementRecord) -> None:
    """Say how features moved."""
    names = list(found.features[0].parameters) if found.features else []
    shown = _chosen(len(found.adapters), max(2, _COLUMNS // max(1, len(names))))
    changed = " -> ".join(str(found.adapters[at].n_changed) for at in shown)
    say(console, f"{found.component} on {found.n_features} features: {changed} changed")
    if len(shown) < len(found.adapters):
        say(console, f"{len(shown)} of {len(found.adapters)} adapters are shown; --json has all")
    if found.features:
        several = len({each.hook for each in found.features}) > 1
        titles = (
            *(["hook"] if several else []),
            "feature",
            *(_title(found.adapters[at]) for at in shown),
            "size",
        )
        rows = [
            (
                *([each.hook] if several else []),
                str(each.feature),
                *(_cell(each, at) for at in shown),
                f"{each.size[-1]:.3f}",
            )
            for each in found.features
        ]
        title = f"How features moved: {', '.join(names)}"
        console.print(
            named_table(title, titles, rows, [each.description for each in found.features])
        )
    if found.last is not None:
        say(console, f"The last of them, {found.last.adapter}:")
        print_audit(console, found.last)


def _chosen(n: int, most: int) -> list[int]:
    """Evenly spaced ones, the first and the last among them."""
    if n <= most:
        return list(range(n))
    return [round(at * (n - 1) / (most - 1)) for at in range(most)]


def _title(adapter: MovedAdapter) -> str:
    return Path(adapter.path).name if adapter.step is None else f"step {adapter.step}"


def _cell(feature: MovedFeature, at: int) -> str:
    return " ".join(f"{values[at]:+.3f}" for values in feature.parameters.values())
