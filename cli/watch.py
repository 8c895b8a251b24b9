"""``cleansteer watch``: what the features of a training are doing."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonOption

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

_PAUSE = 2.0


def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The --out of a training that runs, or has run.")
    ],
    most: Annotated[
        int, typer.Option("--most", min=1, help="How many features: those that moved most.")
    ] = 20,
    once: Annotated[
        bool, typer.Option("--once", help="Show what there is, and do not wait for more.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the features that a training has moved most, as it goes on; Ctrl-C stops watching, not the
    training.

    It reads tracking.parquet, which `cleansteer train` writes whenever it logs (--log-steps).
    """
    from rich.console import Console

    from ..core.tracked import movers, read_tracking

    if json:
        found = movers(read_tracking(folder), most)
        sys.stdout.write(found.to_json(orient="records", indent=2) + "\n")
        return
    console = Console(stderr=True)
    if once:
        console.print(_shown(read_tracking(folder), most, folder))
        return
    _follow(folder, most, console)


def _follow(folder: Path, most: int, console: "Console") -> None:
    import time

    from rich.live import Live

    from ..core.tracked import TRACKING, read_tracking

    seen = 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            ended = _is_over(folder)
            table = read_tracking(folder)
            written = (folder / TRACKING).stat().st_mtime_ns
            if written != seen:
                live.update(_shown(table, most, folder), refresh=True)
                seen = written
            if ended:
                return
            time.sleep(_PAUSE)


def _is_over(folder: Path) -> bool:
    """Whether nothing more will come: the training is finished, or is none of the command line's."""
    from ..core.errors import InputError
    from ..core.records import TrainingRecord

    try:
        return TrainingRecord.read(folder / "training.json").finished
    except InputError:
        return True


def _shown(tracked: "pd.DataFrame", most: int, folder: Path) -> "Table":
    from rich.markup import escape

    from ..core.tracked import movers
    from .figures import named_table, short_hook

    found = movers(tracked, most)
    parameters = [str(name) for name in found if f"{name}_moved" in found]
    several = found["hook"].nunique() > 1
    rows = [
        (
            *([short_hook(str(row["hook"]))] if several else []),
            str(row["feature"]),
            *(f"{row[n]:+.4f}" for name in parameters for n in (name, f"{name}_moved")),
        )
        for row in found.to_dict("records")
    ]
    titles = [*(["hook"] if several else []), "feature"]
    titles += [title for name in parameters for title in (name, "moved")]
    names = [str(name) for name in found["description"]]
    return named_table(escape(f"{folder}, step {tracked['step'].max()}"), titles, rows, names)
