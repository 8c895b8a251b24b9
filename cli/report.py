"""``cleansteer report``: runs as a page to look at."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import DescriptionsOption, JsonOption, check_parents


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The HTML file to write.")
    ] = Path("report.html"),
    descriptions: DescriptionsOption = None,
    labels: Annotated[Path | None, typer.Option("--labels", metavar="FILE", hidden=True)] = None,
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
    from ..core.progress import Reporter
    from ..report import write_report

    reporter = Reporter()
    if labels is not None:
        if descriptions is not None:
            raise InputError(
                f"--labels {labels} is the old name of --descriptions {descriptions}, expected one; "
                "leave --labels out"
            )
        reporter.warn(
            "--labels FILE is now --descriptions FILE; the old name goes with the next release"
        )
        descriptions = str(labels)
    if out.is_dir():
        raise InputError(f"--out {out} is a directory, expected a file's name; change it")
    check_parents(out)
    write_report(runs, out, descriptions, reporter=reporter)
    size = out.stat().st_size
    if json:
        sys.stdout.write(dumps({"report": str(out), "bytes": size}, indent=2) + "\n")
    else:
        Console(stderr=True).print(
            f"{out} ({size / 1e6:.1f} MB): open it in a browser",
            highlight=False,
            markup=False,
            soft_wrap=True,  # a path that is cut in two cannot be copied
        )
