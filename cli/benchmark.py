"""``cleansteer benchmark``: comparisons across settings."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DeviceOption, JsonOption, check_parents, open_pipeline

if TYPE_CHECKING:
    from ..benchmarks.families import Table
    from ..study.study import Pipeline

_TOLD = ("setting", "verdict", "stability", "collateral", "skill_clean_score")


def families(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTING|RUN",
            help="Settings to screen, and directories of finished runs [default: all miniatures].",
        ),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--runs", metavar="DIR", help="Where the settings' runs lie.")
    ] = Path("runs"),
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where to write the tables.")
    ] = Path("families"),
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Compare settings: families of models, kinds of SAE, widths; published figures beside them.

    Screens the settings that have no finished run yet (an interrupted one goes on), then writes
    predictor skill by predictor set and label, strongest statistics under control, residualised
    skill, fresh check, reliability, verdicts and widths as families.md, .tex, .csv, .json and
    .html.
    """
    from json import dumps

    from ..benchmarks.families import compare
    from ..benchmarks.families.comparison import read_all
    from ..benchmarks.families.formats import plain, write_tables
    from ..core.progress import Reporter
    from ..predictor.tables import refuse_repeated
    from ..report.page import write_report
    from ..study.catalogue import miniatures

    check_parents(out / "families.md")
    opened = [_opened(source, runs, device) for source in sources or miniatures()]
    paths = [found if isinstance(found, Path) else found.run.path for found in opened]
    refuse_repeated(paths)
    read_all([found for found in opened if isinstance(found, Path)])
    reporter = Reporter()
    for found in opened:
        if not isinstance(found, Path):
            reporter.say(f"screening {found.setting.name} in {found.run.path}")
            found.screen()
    with reporter.bar("comparison", len(paths)) as tick:
        tables = compare(paths, tick)
    heading = _heading(paths)
    files = write_tables(tables, heading, out)
    files.append(out / "families.html")
    write_report(paths, files[-1], tables=lambda: tables)
    if json:
        sys.stdout.write(dumps(plain(tables, heading), indent=2, allow_nan=False) + "\n")
    else:
        _print(tables, files)


def _opened(source: str, runs: Path, device: str) -> "Path | Pipeline":
    """The directory of a finished run, or the pipeline that will finish it.

    Raises:
        InputError: neither a setting nor a run.

    """
    from ..core.layout import SCREENING
    from ..core.runs import MANIFEST
    from ..study.catalogue import bundled, find_setting

    path = Path(source)
    if source not in bundled() and (path / MANIFEST).is_file():
        return path
    pipeline = open_pipeline(source, runs / find_setting(source).name, device=device)
    return pipeline.run.path if pipeline.run.has(SCREENING) else pipeline


def _heading(paths: Sequence[Path]) -> list[str]:
    """How the tables were made: the command, and when and by which version the runs were."""
    import shlex

    from ..core.runs import RunDirectory

    manifests = [RunDirectory.existing(path).manifest for path in paths]
    versions = sorted({manifest["versions"]["cleansteer"] for manifest in manifests})
    days = sorted(manifest["commands"][-1]["at"][:10] for manifest in manifests)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return [
        f"Made by `{shlex.join(['cleansteer', *sys.argv[1:]])}`.",
        f"Screened {when} with cleansteer {', '.join(versions)}.",
    ]


def _print(tables: "Sequence[Table]", files: Sequence[Path]) -> None:
    """The verdicts, and where everything is."""
    from rich.console import Console

    from .summary import plain_table

    console = Console(stderr=True)
    shown = plain_table(tables[0].title)
    for name in _TOLD:
        shown.add_column(name.replace("_", " "))
    for row in tables[0].shown():
        shown.add_row(*(row[name] for name in _TOLD))
    console.print(shown)
    console.print(
        f"{len(tables)} tables in {', '.join(map(str, files))}", highlight=False, markup=False
    )
