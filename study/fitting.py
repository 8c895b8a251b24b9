"""A predictor from labels that are there: of one run, of a table, or of several."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from ..core.errors import InputError
from ..core.progress import Reporter
from ..core.records import Skill
from ..core.records.validation import Transfer
from ..predictor.evidence import (
    LabelledTable,
    read_all,
    read_columns,
    shared,
    targets_of,
    transfer,
    validate,
)
from ..predictor.evidence.pooling import fit_pooled, n_fits
from ..predictor.model import FOLDS, ModularityPredictor, save
from .entry import load_study

Sources = str | PathLike[str] | Sequence[str | PathLike[str]]


def fit(
    sources: Sources,
    *,
    out: str | PathLike[str] | None = None,
    columns: str | PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Skill] | Transfer:
    """Fit the predictor on labels that are there; returns how well it predicts.

    Of one run or table: its out-of-fold skill by label. Of several, fitted on ranks within each of
    them so that it may rank a setting of which nothing is labelled: how well that went among them.

    Args:
        sources: a run directory, a .csv or .parquet table, or several.
        out: where to save the predictor; None: in the run.
        columns: TOML file that maps a table's columns to ours.
        seed: where it is not the run's own.
        progress: False shows nothing.

    Raises:
        InputError: a source cannot be read, or ``out`` is missing.

    """
    paths = [Path(sources)] if isinstance(sources, str | PathLike) else [*map(Path, sources)]
    skills, transferred = fit_sources(
        paths,
        out=None if out is None else Path(out),
        columns=None if columns is None else Path(columns),
        seed=seed,
        reporter=Reporter(quiet=not progress),
    )
    return skills if transferred is None else transferred


def fit_sources(
    sources: Sequence[Path],
    *,
    out: Path | None,
    columns: Path | None,
    seed: int,
    reporter: Reporter | None = None,
) -> tuple[dict[str, Skill], Transfer | None]:
    """What :func:`fit` does; the skill of one source, or the transfer among several."""
    reporter = reporter or Reporter()
    if len(sources) == 1 and sources[0].is_dir() and out is None and columns is None:
        return load_study(sources[0], progress=reporter.shows).fit(), None
    if out is None:
        what = str(sources[0]) if len(sources) == 1 else f"{len(sources)} sources"
        need = "needs" if len(sources) == 1 else "need"
        raise InputError(f"{what} {need} --out DIR to save the predictor in; give it")
    tables = read_all(sources, None if columns is None else read_columns(columns))
    if len(tables) == 1:
        return _fit_one(tables[0], out, seed, reporter), None
    _, targets = shared(tables)
    with reporter.bar("predictor", len(targets) * (FOLDS + 1)) as tick:
        predictor = fit_pooled(tables, seed, lambda: tick(1))
    with reporter.bar("transfer", n_fits(tables)) as tick:
        transferred = transfer(tables, seed, tick)
    save(predictor, out)
    return {}, transferred


def _fit_one(table: LabelledTable, out: Path, seed: int, reporter: Reporter) -> dict[str, Skill]:
    predictor = ModularityPredictor(targets_of(table), seed)
    with reporter.bar("predictor", predictor.n_fits) as tick:
        predictor.fit(table.statistics, table.labels, tick=lambda: tick(1))
    save(predictor, out)
    labels = table.labels[targets_of(table)]
    return validate(table.statistics, labels, {seed: predictor.out_of_fold_})
