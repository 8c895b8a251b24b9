"""``cleansteer fit``, ``rank`` and ``allowlist``: from labels to a list of features."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonOption

if TYPE_CHECKING:
    from ..benchmarks.pipeline import Pipeline

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def fit(run: RunArgument, json: JsonOption = False) -> None:
    """Fit the predictor on a run's labels, and print its out-of-fold skill."""
    from json import dumps

    from rich.console import Console

    from .summary import skill_table

    pipeline = _pipeline(run)
    _, found = pipeline.fit()
    pipeline.run.record_command()
    skills = {target: skill.to_json() for target, skill in found.items()}
    if json:
        sys.stdout.write(dumps(skills, indent=2) + "\n")
    else:
        Console(stderr=True).print(skill_table(skills))


def rank(run: RunArgument, json: JsonOption = False) -> None:
    """Rank all features of a run by predicted clean score."""
    from rich.console import Console

    from .summary import ranking_tables

    pipeline = _pipeline(run)
    ranking = pipeline.rank()
    pipeline.run.record_command()
    if json:
        sys.stdout.write(ranking.to_json(orient="records", indent=2) + "\n")
    else:
        for table in ranking_tables(ranking):
            Console(stderr=True).print(table)


def allowlist(
    run: RunArgument,
    top: Annotated[
        int | None, typer.Option("--top", metavar="K", help="Take the K features ranked highest.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="S", help="Take all from this score up.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write [default: RUN/allowlist.json]."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write an allowlist of the cleanest features of a screened run."""
    from json import dumps

    from rich.console import Console

    from ..core.errors import InputError

    if (top is None) == (min_score is None):
        raise InputError("give either --top K or --min-score S")
    pipeline = _pipeline(run)
    made, path = pipeline.allowlist(top=top, min_score=min_score, path=out)
    pipeline.run.record_command()
    if json:
        sys.stdout.write(dumps(made, indent=2) + "\n")
    else:
        Console(stderr=True).print(
            f"{len(made['features'])} features in {path}", highlight=False, markup=False
        )


def _pipeline(run: Path) -> "Pipeline":
    from ..benchmarks.pipeline import Pipeline
    from ..core.progress import Reporter
    from ..core.runs import RunDirectory

    directory = RunDirectory.existing(run)
    return Pipeline(directory.setting(), directory, Reporter())
