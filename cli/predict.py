"""``cleansteer fit``, ``rank`` and ``allowlist``: from labels to a list of features."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ColumnsOption, JsonOption

if TYPE_CHECKING:
    from ..core.records import Skill
    from ..study.study import Pipeline

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

    from ..core.errors import InputError
    from .figures import skill_table

    if len(sources) > 1:
        _fit_several(sources, out, columns, seed, json)
        return
    if sources[0].is_dir() and out is None and columns is None:
        pipeline = _pipeline(sources[0])
        _, found = pipeline.fit()
        pipeline.run.record_command()
    elif out is None:
        raise InputError(f"{sources[0]} needs --out DIR to save the predictor in; give it")
    else:
        found = _fit_table(sources[0], out, columns, seed)
    if json:
        plain = {target: skill.model_dump(mode="json") for target, skill in found.items()}
        sys.stdout.write(dumps(plain, indent=2) + "\n")
    else:
        Console(stderr=True).print(skill_table(found))


def _fit_table(source: Path, out: Path, columns: Path | None, seed: int) -> "dict[str, Skill]":
    from ..core.progress import Reporter
    from ..predictor.evidence.examination import targets_of
    from ..predictor.evidence.tables import read_all, read_columns
    from ..predictor.evidence.validation import validate
    from ..predictor.model.files import save
    from ..predictor.model.models import ModularityPredictor

    (table,) = read_all([source], None if columns is None else read_columns(columns))
    predictor = ModularityPredictor(targets_of(table), seed)
    with Reporter().bar("predictor", predictor.n_fits) as tick:
        predictor.fit(table.statistics, table.labels, tick=lambda: tick(1))
    save(predictor, out)
    labels = table.labels[targets_of(table)]
    return validate(table.statistics, labels, {seed: predictor.out_of_fold_})


def _fit_several(
    sources: list[Path], out: Path | None, columns: Path | None, seed: int, json: bool
) -> None:
    from rich.console import Console

    from ..core.errors import InputError
    from ..core.progress import Reporter
    from ..predictor.evidence.tables import read_all, read_columns
    from ..predictor.evidence.transfer import fit_pooled, n_fits, shared, transfer
    from ..predictor.model.blend import FOLDS
    from ..predictor.model.files import save
    from .validated import transfer_table

    if out is None:
        raise InputError(f"{len(sources)} sources need --out DIR to save the predictor in; give it")
    mapping = None if columns is None else read_columns(columns)
    tables = read_all(sources, mapping)
    _, targets = shared(tables)
    reporter = Reporter()
    with reporter.bar("predictor", len(targets) * (FOLDS + 1)) as tick:
        predictor = fit_pooled(tables, seed, lambda: tick(1))
    with reporter.bar("transfer", n_fits(tables)) as tick:
        found = transfer(tables, seed, tick)
    save(predictor, out)
    if json:
        sys.stdout.write(found.to_json() + "\n")
    else:
        console = Console(stderr=True)
        console.print(transfer_table(found))
        console.print(f"predictor in {out}", highlight=False, markup=False)


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

    from .summary import ranking_tables, reason_lines

    pipeline = _pipeline(run)
    if predictor is None:
        ranking = pipeline.rank()
    else:
        from ..predictor.model.files import load

        ranking = pipeline.rank_by(load(predictor))
    pipeline.run.record_command()
    if json:
        sys.stdout.write(ranking.to_json(orient="records", indent=2) + "\n")
    else:
        console = Console(stderr=True)
        for table in ranking_tables(ranking):
            console.print(table)
        for line in reason_lines(ranking):
            console.print(line, highlight=False, markup=False)


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
    from ..core.progress import Reporter
    from ..core.runs import RunDirectory
    from ..study.study import Pipeline

    directory = RunDirectory.existing(run)
    return Pipeline(directory.setting(), directory, Reporter())
