"""``cleansteer benchmark``: comparisons across settings."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DeviceOption,
    JsonOption,
    SettingArgument,
    check_packages,
    check_parents,
    open_run,
)

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


def adapters(
    setting: SettingArgument,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Empty or new directory [default: adapters]."),
    ] = Path("adapters"),
    topics: Annotated[
        str | None,
        typer.Option(
            "--topics",
            metavar="PACKAGE,...",
            help="Installed packages whose docstrings the model has not seen [default: three of those "
            "that the miniatures never see].",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each kind a topic.")] = 3,
    pools: Annotated[
        str | None,
        typer.Option("--pools", metavar="POOL,...", help="Pools of features [default: all]."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", help="Features of an adapter in the main comparison.")
    ] = 100,
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps of a training.")] = 40,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Texts in a step.")] = 16,
    max_length: Annotated[int, typer.Option("--max-length", help="Tokens of a text.")] = 48,
    budgets: Annotated[
        str,
        typer.Option(
            "--budgets", metavar="B,...", help="KL elsewhere at which gains are read, nats a token."
        ),
    ] = "0.005,0.02,0.1",
    brief: Annotated[
        bool, typer.Option("--brief", help="The main comparison alone: no sizes, no preferences.")
    ] = False,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Compare pools of features as what adapters are trained on, at equal cost elsewhere.

    Adapters on predicted-clean (by the paper's score, by both axes, at matched strength), messy,
    random and all features, inside each pool those that are worth most; beside them LoRA and IA3.
    What each gains on a topic that the model has not seen is read at equal KL on other text, at equal
    numbers of downstream features moved, and at equal drift. Writes results.md, frontier.svg,
    points.parquet and gains.parquet; an interrupted experiment goes on.
    """
    import shlex
    from json import dumps

    check_packages("aenum", "peft", "trl")
    from ..benchmarks.adapters.design import POOLS, TOPICS, Design
    from ..benchmarks.adapters.report import compare_adapters
    from ..core.checks import read_number
    from ..core.progress import Reporter
    from ..study.catalogue import load_setting

    check_parents(out / "results.md")
    design = Design(
        topics=TOPICS if topics is None else tuple(_listed(topics)),
        seeds=seeds,
        pools=POOLS if pools is None else tuple(_listed(pools)),
        count=count,
        steps=steps,
        batch_size=batch_size,
        max_length=max_length,
        budgets=tuple(read_number("--budgets", budget) for budget in _listed(budgets)),
        brief=brief,
    )
    command = shlex.join(["cleansteer", *sys.argv[1:]])
    compared = compare_adapters(load_setting(setting), design, out, command, device, Reporter())
    if json:
        table = compared.means.astype(object).where(compared.means.notna(), None)
        sys.stdout.write(dumps(table.to_dict("records"), indent=2, allow_nan=False) + "\n")
    else:
        from rich.console import Console
        from rich.markdown import Markdown

        console = Console(stderr=True)
        console.print(Markdown(compared.told))
        console.print(", ".join(map(str, compared.files)), highlight=False, markup=False)


def _listed(given: str) -> list[str]:
    return [part.strip() for part in given.split(",") if part.strip()]
