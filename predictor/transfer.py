"""Transfer: fit on some settings, rank another whose features nobody has steered."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.threads import in_parallel
from .blend import FOLDS, Blend, blended
from .models import ModularityPredictor
from .resampling import bootstrap, resampled_spearman
from .scores import RESAMPLES, out_of_fold, percentile_interval, spearman
from .tables import LabelledTable
from .targets import TARGETS
from .transforms import NormalScores

Array = NDArray[np.float64]


def rank_normalised(statistics: pd.DataFrame, among: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every statistic as its rank within its own dictionary, between 0 and 1: (rank - 1/2)/n.

    Norms, activations and logits differ in scale from model to model; their order within a model is
    what settings share.

    Args:
        statistics: ``[feature, statistic]``.
        among: rows that ranks are taken within (the labelled or the eligible features); those given.
            Others get the share of these that lie below, half of the ties included.

    """
    reference = statistics if among is None else among
    columns = {}
    for name in statistics.columns:
        known = np.sort(reference[name].to_numpy(dtype=np.float64))
        values = statistics[name].to_numpy(dtype=np.float64)
        below = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
        columns[name] = below / (2 * len(known))
    return pd.DataFrame(columns, index=statistics.index)


def shared(tables: Sequence[LabelledTable]) -> tuple[list[str], list[str]]:
    """Statistics and targets that all tables have.

    Raises:
        InputError: there are none.

    """
    found = []
    for what, wanted, held in (
        ("statistic", list(tables[0].statistics.columns), [t.statistics for t in tables]),
        ("label", list(TARGETS), [t.labels for t in tables]),
    ):
        names = [name for name in wanted if all(name in columns for columns in held)]
        if not names:
            raise InputError(
                f"{' and '.join(table.name for table in tables)} share no {what}; give tables with "
                "columns named alike (--columns)"
            )
        found.append(names)
    return found[0], found[1]


def pooled(
    tables: Sequence[LabelledTable], columns: Sequence[str], target: str
) -> tuple[Array, Array]:
    """Rank-normalised statistics and normal scores of a label, of all tables one below the other."""
    X = [rank_normalised(table.statistics[list(columns)]).to_numpy() for table in tables]
    y = [_normal(table.labels[target].to_numpy(dtype=np.float64)) for table in tables]
    return np.vstack(X), np.concatenate(y)


def _normal(y: Array) -> Array:
    return NormalScores().fit(y)(y)


def fit_pooled(
    tables: Sequence[LabelledTable], seed: int, tick: Callable[[], object] | None = None
) -> ModularityPredictor:
    """A predictor of normal scores from ranks, fitted on all tables; its features are called
    ``table/feature``.

    Raises:
        InputError: the tables share no statistic or no target.

    """
    columns, targets = shared(tables)
    names = [f"{table.name}/{feature}" for table in tables for feature in table.statistics.index]
    data = {target: pooled(tables, columns, target) for target in targets}
    X = pd.DataFrame(data[targets[0]][0], columns=columns, index=names)
    Y = pd.DataFrame({target: y for target, (_, y) in data.items()}, index=names)
    return ModularityPredictor(targets, seed, scale="ranks").fit(X, Y, tick)


def n_fits(tables: Sequence[LabelledTable]) -> int:
    """How many ticks :func:`transfer` takes."""
    return len(tables) * len(shared(tables)[1])


def transfer(
    tables: Sequence[LabelledTable], seed: int, tick: Callable[[int], object] = lambda _: None
) -> dict[str, Any]:
    """For each table and target: Spearman of a blend fitted on all *other* tables, which has seen no
    label of this one, with its 95 % bootstrap interval over features; and beside it the skill within
    the table (out-of-fold, same statistics, one repeat).

    Raises:
        InputError: the tables share no statistic.

    """
    columns, targets = shared(tables)

    def score(job: tuple[int, str]) -> dict[str, Any]:
        place, target = job
        table = tables[place]
        y = table.labels[target].to_numpy(dtype=np.float64)
        counts = bootstrap(len(y), RESAMPLES, seed)
        X = rank_normalised(table.statistics[columns]).to_numpy()
        others = [other for i, other in enumerate(tables) if i != place]
        moved = Blend(seed).fit(*pooled(others, columns, target)).predict_scores(X)
        own = table.statistics[columns].to_numpy(dtype=np.float64)
        within = out_of_fold(blended(seed, target), np.ascontiguousarray(own), y, seed)
        tick(1)
        return {
            "table": table.name,
            "target": target,
            **{
                name: asdict(
                    percentile_interval(spearman(found, y), resampled_spearman(found, y, counts))
                )
                for name, found in (("transferred", moved), ("within", within))
            },
        }

    jobs = [(place, target) for place in range(len(tables)) for target in targets]
    return {"statistics": columns, "folds_within": FOLDS, "cells": in_parallel(score, jobs)}
