"""What ``cleansteer sweep`` says when it is done."""

from pathlib import Path

from rich.console import Console

from ..adapters.sweeps.told import rows, verdict
from ..core.records import SweepRecord
from .figures import named_table


def print_sweep(record: SweepRecord, out: Path) -> None:
    """Say on stderr what a sweep found."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if record.ranked:
        heads, found = rows(record, whole=False)
        console.print(named_table("Best trials", heads, found, [None] * len(found)))
    for line in verdict(record):
        console.print(line)
    if record.ranked:
        console.print(f"Adapter: {out / 'best'}")
    console.print(f"Table and picture: {out / 'sweep.parquet'}, {out / 'sweep.md'}")
