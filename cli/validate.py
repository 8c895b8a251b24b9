"""``cleansteer validate``: how far a ranking can be trusted, from labels that are there."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import NOT_TRUSTED, ColumnsOption, JsonOption, StrictOption


def validate(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|TABLE...", help="Run directories, .csv or .parquet tables."),
    ],
    columns: ColumnsOption = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the first repeat's folds.")
    ] = 0,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Divisions into five folds to average over.")
    ] = 3,
    shuffles: Annotated[
        int,
        typer.Option("--shuffles", min=0, help="Shuffled labels for the floor; 0 leaves it out."),
    ] = 20,
    curve: Annotated[
        Path | None,
        typer.Option(
            "--curve",
            metavar="FILE",
            help="Learning curve of clean_score: a .svg or .png plot, and its table beside it (.csv).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write all results, as JSON."),
    ] = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> int:
    """Cross-validate the predictor on existing labels, and judge how far to trust it.

    Ours beside the paper's ridge, plain boosting and baselines, with intervals for scores and
    differences; the ceiling that the labels' reliability sets and the floor of shuffled labels;
    coverage of the intervals; every predictor set; residualised targets; partial rank correlations.
    With several sources also the transfer from the others to each. A run gets validation.json.
    """
    from rich.console import Console

    from ..predictor.evidence import validate_sources
    from .validated import print_examination, print_overall

    validation = validate_sources(
        sources, columns, seed=seed, repeats=repeats, shuffles=shuffles, curve=curve, out=out
    )
    if json:
        sys.stdout.write(validation.to_json() + "\n")
    else:
        console = Console(stderr=True)
        for examination in validation.tables:
            print_examination(console, examination)
        print_overall(console, validation)
    return 0 if validation.trusted or not strict else NOT_TRUSTED
