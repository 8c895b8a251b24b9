"""``cleansteer validate``: how far a ranking can be trusted, from labels that are there."""

import sys
from pathlib import Path
from typing import Annotated, Any

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
        typer.Option("--out", metavar="FILE", help="Where to write everything found, as JSON."),
    ] = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> int:
    """Cross-validate the predictor on labels that are there, and say how far to trust it.

    Ours beside the paper's ridge, plain boosting and baselines, with intervals for scores and
    differences; the ceiling that the labels' reliability sets and the floor of shuffled labels;
    coverage of the intervals; every predictor set; residualised targets; partial rank correlations.
    With several sources also the transfer from the others to each. A run gets validation.json.
    """
    from json import dumps

    from rich.console import Console

    from ..core.errors import InputError
    from ..core.progress import Reporter
    from ..core.tables import write_json
    from ..predictor.examination import examine, mean_over_cells, n_steps
    from ..predictor.learning import TARGET, examine_curve, n_curve_fits
    from ..predictor.models import LEAST_LABELLED
    from ..predictor.tables import read_all, read_columns
    from ..predictor.transfer import n_fits, shared, transfer
    from ..study.published import reliability_for
    from .validated import print_examination, print_overall

    if curve is not None and curve.suffix not in (".svg", ".png"):
        raise InputError(f"--curve {curve}: expected a name that ends in .svg or .png; change it")
    mapping = None if columns is None else read_columns(columns)
    tables = read_all(sources, mapping)
    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a directory, expected a file's name; change it")
    for table in tables:
        if curve is not None and TARGET not in table.labels:
            raise InputError(
                f"{table.name} has no {TARGET}, of which --curve is drawn; leave --curve out"
            )
        if len(table.labels) < LEAST_LABELLED:
            raise InputError(
                f"{table.name} has {len(table.labels)} labelled features, expected at least "
                f"{LEAST_LABELLED}; label more (--labels)"
            )
    if len(tables) > 1:
        shared(tables)
    reporter = Reporter()
    examined: list[dict[str, Any]] = []
    for source, table in zip(sources, tables, strict=True):
        with reporter.bar(table.name, n_steps(table, repeats, shuffles)) as tick:
            published = reliability_for(table.name)
            found = examine(table, seed, repeats, shuffles, tick, published)
        if source.is_dir():
            write_json(source / "validation.json", found)
        examined.append(found)
    result: dict[str, Any] = {"tables": examined, "overall": mean_over_cells(examined)}
    if len(tables) > 1:
        with reporter.bar("transfer", n_fits(tables)) as tick:
            result["transfer"] = transfer(tables, seed, tick)
    if curve is not None:
        curves = {}
        for table in tables:
            with reporter.bar(f"curve {table.name}", n_curve_fits(table, repeats)) as tick:
                curves[table.name] = examine_curve(table, seed, repeats, tick)
        ceilings = {
            found["name"]: found["reliability"][TARGET]["ceiling"]
            for found in examined
            if TARGET in found["reliability"]
        }
        result["learning_curve"] = _draw(curves, ceilings, curve)
    if out is not None:
        write_json(out, result)
    if json:
        sys.stdout.write(dumps(result, indent=2, allow_nan=False) + "\n")
    else:
        console = Console(stderr=True)
        for found in examined:
            print_examination(console, found)
        print_overall(console, result)
    verdicts = {found["trust"]["overall"] for found in examined}
    return NOT_TRUSTED if strict and "not trusted" in verdicts else 0


def _draw(
    curves: dict[str, dict[str, Any]], ceilings: dict[str, float], path: Path
) -> dict[str, Any]:
    import pandas as pd

    from ..core.tables import write_text
    from ..predictor.learning import TARGET
    from ..predictor.plots import plot_curve

    panels = {name: pd.DataFrame(curve["points"]) for name, curve in curves.items()}
    plot_curve(panels, path, ceilings)
    whole = pd.concat([t.assign(table=name) for name, t in panels.items()], ignore_index=True)
    write_text(path.with_suffix(".csv"), whole.to_csv(index=False))
    return {
        "target": TARGET,
        "points": whole.to_dict("records"),
        "ours_with_all_minus_ridge_with_few": {n: curve["lead"] for n, curve in curves.items()},
    }
