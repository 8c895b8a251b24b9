"""``cleansteer benchmark``: comparisons across settings."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DeviceOption, JsonOption, check_parents, open_run

if TYPE_CHECKING:
    from ..benchmarks.families.families import PlannedRun
    from ..report.comparison import ComparisonTable

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
    import shlex
    from json import dumps

    from ..benchmarks.families.families import compare_families
    from ..benchmarks.families.formats import to_json
    from ..core.progress import Reporter
    from ..study.catalogue import miniatures

    check_parents(out / "families.md")
    planned = [_plan(source, runs, device) for source in sources or miniatures()]
    command = shlex.join(["cleansteer", *sys.argv[1:]])
    compared = compare_families(planned, out, command, Reporter())
    if json:
        data = to_json(compared.tables, compared.heading)
        sys.stdout.write(dumps(data, indent=2, allow_nan=False) + "\n")
    else:
        _print(compared.tables, compared.files)


def _plan(source: str, runs: Path, device: str) -> "PlannedRun":
    """The finished run that a source names, or the run that its setting will be screened in.

    Raises:
        InputError: neither a setting nor a run.

    """
    from ..benchmarks.families.families import PlannedRun
    from ..core.layout import MANIFEST
    from ..report.comparison.screened import without_labels
    from ..study.catalogue import bundled, load_setting

    path = Path(source)
    if source not in bundled() and (path / MANIFEST).is_file():
        return PlannedRun(path, source)
    name = load_setting(source).name
    study = open_run(source, runs / name, device)
    if study.setting.steering.n_features == 0:
        raise without_labels(study.path)
    return PlannedRun(study.path, name, None if study.screened else study.screen)


def _print(tables: "Sequence[ComparisonTable]", files: Sequence[Path]) -> None:
    """The verdicts, and where everything is."""
    from rich.console import Console

    from .figures import plain_table

    console = Console(stderr=True)
    shown = plain_table(tables[0].title)
    for name in _TOLD:
        shown.add_column(name.replace("_", " "))
    for row in tables[0].as_text():
        shown.add_row(*(row[name] for name in _TOLD))
    console.print(shown)
    console.print(
        f"{len(tables)} tables in {', '.join(map(str, files))}", highlight=False, markup=False
    )
