"""What ``cleansteer train`` says when it is done."""

from pathlib import Path
from typing import Any

from rich.console import Console

from ..adapters.components.component import component_class
from ..core.words import counted


def print_training(record: dict[str, Any], out: Path) -> None:
    """Say on stderr what a training brought, from what ``training.json`` records."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    console = Console(stderr=True)
    trust = record["trust"]
    if record["baseline"] is None:
        name = record["component"]["component"]
        never = record.get("never_fire", 0)
        n = len(record["features"]) if record["features"] else record["sae"]["n_features"]
        cannot = "" if component_class(name).moves_silent else " and cannot learn"
        say(
            f"{name} on {counted(n, 'feature')}, {counted(record['n_parameters'], 'parameter')}"
            + (f"; {never} of them never fire on the data{cannot}" * (never > 0))
        )
        if trust is not None:
            say(f"Allowlist: {trust['overall']}")
    else:
        say(f"{record['baseline']}, {counted(record['n_parameters'], 'parameter')}")
    metrics = record["metrics"]
    for key in ("data", "evaluated"):
        left_out = record[key]["n"] - record[key]["n_used"]
        if left_out:
            say(
                f"{left_out} of {record[key]['n']} examples have nothing to learn within --max-length"
            )
    say(
        f"Held-out loss on {counted(record['evaluated']['n_used'], 'example')}: "
        f"{metrics['before']:.4f} before, {metrics['after']:.4f} after (best of the evaluations; "
        f"{counted(record['n_steps'], 'step')}, "
        f"beta2 {record['beta2']:g})"
    )
    if metrics["after"] >= metrics["before"]:
        say(
            "No adapter was better than none: try a smaller --learning-rate, other features or data"
        )
    say(f"Adapter: {out}")
