"""``cleansteer report``: runs as a page to look at."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonOption, check_parents

if TYPE_CHECKING:
    from ..benchmarks.families import Table


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The HTML file to write.")
    ] = Path("report.html"),
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Descriptions of the features: .csv with the columns index and description, or .jsonl "
            "with these keys.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a run, or several side by side, as one HTML file that needs no network.

    The verdict, all features in a table to sort, filter and search, stability against collateral to
    choose an allowlist from, skill, fresh check and controls. What a run does not hold yet is named,
    with the command that makes it. Several screened runs are compared as by `cleansteer benchmark
    families`, with published figures beside them; what that takes is kept in the runs
    (estimates.json), so that it is made once.
    """
    from json import dumps

    from rich.console import Console

    from ..core.errors import InputError
    from ..report.page import write_report

    if out.is_dir():
        raise InputError(f"--out {out} is a directory, expected a file's name; change it")
    check_parents(out)
    write_report(runs, out, labels, lambda: _compared(runs))
    size = out.stat().st_size
    if json:
        sys.stdout.write(dumps({"report": str(out), "bytes": size}, indent=2) + "\n")
    else:
        Console(stderr=True).print(
            f"{out} ({size / 1e6:.1f} MB): open it in a browser", highlight=False, markup=False
        )


def _compared(runs: "list[Path]") -> "list[Table]":
    """The comparison of those runs that are screened; no tables where none is."""
    from ..core.layout import SCREENING

    finished = [run for run in runs if (run / SCREENING).is_file()]
    if not finished:
        return []
    from ..benchmarks.families import compare
    from ..benchmarks.families.comparison import read_all
    from ..core.progress import Reporter

    read_all(finished)  # what is wrong is told before the bar
    with Reporter().bar("comparison", len(finished)) as tick:
        return compare(finished, tick)
