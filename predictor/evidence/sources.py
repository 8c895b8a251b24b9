"""Validation of runs and tables: what ``cleansteer validate`` does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ...core.errors import InputError
from ...core.layout import VALIDATION
from ...core.progress import Reporter
from ...core.published import reliability_for
from ...core.records.validation import Curves, Examination, TableCurve, Validation
from ...core.tables import write_text
from ..model.checks import LEAST_FITTED
from .examination import examine, mean_over_cells, n_steps
from .learning import TARGET, examine_curve, n_curve_fits
from .plots import FORMATS, plot_curve
from .pooling import n_fits, shared, transfer
from .tables import LabelledTable, read_all, read_columns


def validate_sources(
    sources: Sequence[Path],
    columns: Path | None = None,
    seed: int = 0,
    repeats: int = 3,
    shuffles: int = 20,
    curve: Path | None = None,
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> Validation:
    """Cross-validate the predictor on labels that are there, and judge how far to trust it.

    Nothing is computed before every source is read and checked. A run gets its examination as
    ``validation.json``.

    Args:
        sources: run directories, ``.csv`` or ``.parquet`` tables.
        columns: TOML file that maps others' columns to ours
            (:func:`~cleansteer.predictor.evidence.tables.read_columns`).
        seed: seeds the first repeat's folds, and everything else that is drawn.
        repeats: divisions into five folds to average over.
        shuffles: shuffled labels for the floor; 0 leaves it out.
        curve: where to draw the learning curve of clean_score (``.svg`` or ``.png``); its table goes
            beside it (``.csv``).
        out: where to write the whole result, as JSON.
        reporter: shows progress; by default on stderr.

    Raises:
        InputError: a source or an option is wrong, or a source has fewer than 30 labelled features.

    """
    _check_options(repeats, shuffles, seed, curve, out)
    tables = read_all(sources, None if columns is None else read_columns(columns))
    for table in tables:
        _check_table(table, curve)
    if len(tables) > 1:
        shared(tables)
    reporter = reporter or Reporter()
    examined = []
    for source, table in zip(sources, tables, strict=True):
        with reporter.bar(table.name, n_steps(table, repeats, shuffles)) as tick:
            examination = examine(table, seed, repeats, shuffles, tick, reliability_for(table.name))
        if source.is_dir():
            examination.write(source / VALIDATION)
        examined.append(examination)
    moved = None
    if len(tables) > 1:
        with reporter.bar("transfer", n_fits(tables)) as tick:
            moved = transfer(tables, seed, tick)
    curves = None
    if curve is not None:
        by_table = {}
        for table in tables:
            with reporter.bar(f"curve {table.name}", n_curve_fits(table, repeats)) as tick:
                by_table[table.name] = examine_curve(table, seed, repeats, tick)
        curves = _drawn(by_table, examined, curve)
    validation = Validation(
        tables=examined,
        overall=mean_over_cells(examined),
        transfer=moved,
        learning_curve=curves,
    )
    if out is not None:
        write_text(out, validation.to_json() + "\n")
    return validation


def _check_options(
    repeats: int, shuffles: int, seed: int, curve: Path | None, out: Path | None
) -> None:
    for name, value, least in (
        ("repeats", repeats, 1),
        ("shuffles", shuffles, 0),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"--{name} {value}: expected {least} or more; change it")
    if curve is not None and curve.suffix.removeprefix(".") not in FORMATS:
        raise InputError(f"--curve {curve}: expected a name that ends in .svg or .png; change it")
    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a directory, expected a file's name; change it")


def _check_table(table: LabelledTable, curve: Path | None) -> None:
    if curve is not None and TARGET not in table.labels:
        raise InputError(
            f"{table.name} has no {TARGET}, of which --curve is drawn; leave --curve out"
        )
    if len(table.labels) < LEAST_FITTED:
        raise InputError(
            f"{table.name} has {len(table.labels)} labelled features, expected at least "
            f"{LEAST_FITTED}; label more (--labels)"
        )


def _drawn(curves: Mapping[str, TableCurve], examined: Sequence[Examination], path: Path) -> Curves:
    """The learning curves, drawn and written as a table."""
    points = [point for curve in curves.values() for point in curve.points]
    whole = pd.DataFrame([point.model_dump() for point in points])
    panels = {str(name): rows for name, rows in whole.groupby("table", sort=False)}
    ceilings = {
        one.name: one.reliability[TARGET].ceiling for one in examined if TARGET in one.reliability
    }
    plot_curve(panels, path, ceilings)
    write_text(path.with_suffix(".csv"), whole.to_csv(index=False))
    return Curves(
        target=TARGET,
        points=points,
        ours_with_all_minus_ridge_with_few={name: curve.lead for name, curve in curves.items()},
    )
