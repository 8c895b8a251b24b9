"""``cleansteer fit``, ``rank`` and ``allowlist``: from labels to a list of features."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..core.choices import BYS
from .options import ColumnsOption, JsonOption

if TYPE_CHECKING:
    from ..core.choices import By

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def fit(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|TABLE...", help="A run directory; or several, or tables."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where to save the predictor [default: RUN/predictor]."
        ),
    ] = None,
    columns: ColumnsOption = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed, where it is not the run's own.")
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Fit the predictor on labels that are there, and print its out-of-fold skill.

    On one run, for its own features. On several runs or tables (--out DIR), on ranks within each of
    them, so that it may rank a setting of which nothing is labelled (cleansteer rank RUN
    --predictor DIR); printed is how well that went among them.
    """
    from json import dumps

    from rich.console import Console

    from ..study.fitting import fit_sources
    from .figures import skill_table
    from .validated import transfer_table

    skills, transferred = fit_sources(sources, out=out, columns=columns, seed=seed)
    console = Console(stderr=True)
    if transferred is not None:
        if json:
            sys.stdout.write(transferred.to_json() + "\n")
        else:
            console.print(transfer_table(transferred))
            console.print(f"predictor in {out}", highlight=False, markup=False, soft_wrap=True)
    elif json:
        plain = {target: skill.model_dump(mode="json") for target, skill in skills.items()}
        sys.stdout.write(dumps(plain, indent=2) + "\n")
    else:
        console.print(skill_table(skills))


def rank(
    run: RunArgument,
    predictor: Annotated[
        Path | None,
        typer.Option(
            "--predictor",
            metavar="DIR",
            help="A predictor fitted on several other runs; this one needs no labels then.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Rank all features of a run by predicted clean score."""
    from rich.console import Console

    from ..study.entry import load_study
    from .summary import ranking_tables, reason_lines

    study = load_study(run)
    ranking = study.rank(predictor)
    if json:
        sys.stdout.write(ranking.to_json(orient="records", indent=2) + "\n")
    else:
        console = Console(stderr=True)
        by = study.setting.steering.ranked_by if predictor is None else "labels"
        for table in ranking_tables(ranking, by, {}):
            console.print(table)
        for line in reason_lines(ranking):
            console.print(line, highlight=False, markup=False)


def allowlist(
    run: RunArgument,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="K", help="Take the K features ranked highest [default: 100]."
        ),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="S", help="Take all from this score up.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="|".join(BYS),
            help="What --top goes by: the clean score, one axis, or the worse percentile of both.",
        ),
    ] = "clean",
    min_stability: Annotated[
        float | None,
        typer.Option(
            "--min-stability",
            metavar="X",
            help="Only features whose 90 % interval of predicted stability_abs lies above.",
        ),
    ] = None,
    max_collateral_per_effect: Annotated[
        float | None,
        typer.Option(
            "--max-collateral-per-effect",
            metavar="Y",
            help="Only features whose 90 % interval of predicted collateral_per_effect lies below.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write [default: RUN/allowlist.json]."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write an allowlist of the cleanest features of a screened run."""
    from rich.console import Console

    from ..core.layout import ALLOWLIST
    from ..core.words import counted
    from ..study.entry import load_study

    study = load_study(run)
    made = study.allowlist(
        top=top,
        min_score=min_score,
        by=cast("By", by),
        min_stability=min_stability,
        max_collateral_per_effect=max_collateral_per_effect,
    )
    path = made.save(out or study.path / ALLOWLIST)
    if json:
        sys.stdout.write(made.to_json() + "\n")
    else:
        Console(stderr=True).print(
            f"{counted(len(made), 'feature')} in {path}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
