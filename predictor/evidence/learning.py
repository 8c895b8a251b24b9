"""Learning curves: out-of-fold skill by the number of labels that a model was fitted to."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from ...core.records import Interval
from ...core.records.skill import OURS
from ...core.records.validation import CurveLead, CurvePoint, TableCurve
from ..model.baselines import boosting, paper_ridge
from ..model.blend import FOLDS, blended
from ..model.sets import predictor_sets
from ..model.targets import CLEAN_SCORE
from .resampling import bootstrap
from .scores import RESAMPLES, FitPredict, out_of_fold_interval, spearman
from .tables import LabelledTable
from .validation import resampled_mean

Array = NDArray[np.float64]
Cell = tuple[str, int]
"""A method and the number of labels that it was fitted to."""

TARGET = CLEAN_SCORE
SIZES = (100, 300, 1000, sys.maxsize)
_FEW = 300


@dataclass(frozen=True)
class LearningCurve:
    """Scores of a learning curve, and the predictions behind them."""

    scores: pd.DataFrame
    """Columns method, n, repeat, score: Spearman of the out-of-fold predictions over all rows."""
    predictions: Mapping[Cell, Array]
    """Out-of-fold predictions of each method and n, ``[repeat, feature]``."""
    label: Array
    """The label that is predicted, ``[feature]``."""

    @property
    def sizes(self) -> list[int]:
        """Numbers of labels, rising; the last is all that five folds leave for training."""
        return sorted({n for _, n in self.predictions})


def cut_sizes(n_labels: int, sizes: Sequence[int]) -> list[int]:
    """The sizes that five folds of so many labels allow, rising: none above the smallest training
    fold, none twice.
    """
    largest = n_labels - -(-n_labels // FOLDS)
    return sorted({min(n, largest) for n in sizes})


def learning_curve(
    methods: Mapping[str, FitPredict],
    X: Array,
    y: Array,
    sizes: Sequence[int],
    seed: int,
    repeats: int = 5,
    tick: Callable[[int], object] = lambda _: None,
) -> LearningCurve:
    """Repeated 5-fold cross-validation of every method on growing parts of the training rows.

    In every fold the training rows are put in one seeded random order; a model of n labels is fitted
    to the first n of them and predicts the held-out fold. So the rows of a smaller n are among those
    of a larger, and all methods see the same. The folds of repeat r are those of ``out_of_fold`` with
    the seed ``seed + r``.

    Args:
        methods: by name, each a function of training statistics, training labels and new statistics.
        X: statistics, ``[feature, statistic]``.
        y: label, ``[feature]``.
        sizes: numbers of labels. Those above the smallest training fold become it; what then occurs
            twice is fitted once.
        seed: seeds folds and orders.
        repeats: number of divisions into folds.
        tick: called with 1 after every fit.

    Raises:
        ValueError: a size or ``repeats`` is less than 1, no size is given, or ``X`` and ``y`` differ
            in their number of rows.

    """
    if len(X) != len(y):
        raise ValueError(f"{len(X)} rows of statistics, {len(y)} labels")
    if min(sizes, default=0) < 1 or repeats < 1:
        raise ValueError(f"sizes {list(sizes)} and {repeats} repeats, expected some of at least 1")
    cut = cut_sizes(len(y), sizes)
    predictions = {(name, n): np.empty((repeats, len(y))) for name in methods for n in cut}
    for repeat in range(repeats):
        folds = KFold(FOLDS, shuffle=True, random_state=seed + repeat).split(X)
        for fold, (train, test) in enumerate(folds):
            order = np.random.default_rng([seed, repeat, fold]).permutation(train)
            for (name, n), predicted in predictions.items():
                # Sorted, so that with all rows a model that heeds their order is out_of_fold's.
                rows = np.sort(order[:n])
                predicted[repeat, test] = methods[name](X[rows], y[rows], X[test])
                tick(1)
    scores = [
        (name, n, repeat, spearman(predicted[repeat], y))
        for (name, n), predicted in predictions.items()
        for repeat in range(repeats)
    ]
    table = pd.DataFrame(scores, columns=["method", "n", "repeat", "score"])
    return LearningCurve(table, predictions, y)


def summarise_curve(curve: LearningCurve, seed: int) -> pd.DataFrame:
    """Mean score over the repeats with its interval: columns method, n, value, low, high.

    The interval is a 95 % bootstrap over features: in each of 2,000 resamples, the same for all rows
    and methods, the predictions of every repeat are scored again and averaged. It is widened for what
    the bootstrap does not see
    (:func:`~cleansteer.predictor.evidence.scores.out_of_fold_interval`).

    Args:
        curve: as made by :func:`learning_curve`.
        seed: seeds the resampling.

    """
    counts = bootstrap(len(curve.label), RESAMPLES, seed)
    rows = []
    for (name, n), predicted in curve.predictions.items():
        interval = out_of_fold_interval(
            _score(predicted, curve.label), resampled_mean(predicted, curve.label, counts)
        )
        rows.append((name, n, interval.value, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["method", "n", "value", "low", "high"])


def curve_difference(curve: LearningCurve, cell: Cell, other: Cell, seed: int) -> Interval:
    """Mean score of one method and n minus that of another, on the same resampled features.

    Its interval is that of :func:`summarise_curve`, with the same resamples for the same seed.

    Raises:
        KeyError: the curve has no such method and n.

    """
    counts = bootstrap(len(curve.label), RESAMPLES, seed)
    both = [curve.predictions[of] for of in (cell, other)]
    values = [_score(predicted, curve.label) for predicted in both]
    resampled = [resampled_mean(predicted, curve.label, counts) for predicted in both]
    return out_of_fold_interval(values[0] - values[1], resampled[0] - resampled[1], bound=2.0)


def _score(predicted: Array, label: Array) -> float:
    return float(np.mean([spearman(repeat, label) for repeat in predicted]))


def examine_curve(
    table: LabelledTable, seed: int, repeats: int, tick: Callable[[int], object] = lambda _: None
) -> TableCurve:
    """Learning curve of clean_score for ridge and boosting on the paper's statistics, and for ours.

    ``points`` are the rows of :func:`summarise_curve` for :data:`SIZES`; ``lead`` is ours with all
    labels minus the ridge with 300 (or all, where there are fewer), with its interval.

    Args:
        table: statistics and labels, clean_score among them.
        seed: seeds folds, orders, models and resampling.
        repeats: number of divisions into folds.
        tick: called with 1 after each of :func:`n_curve_fits`.

    """
    X = table.statistics.to_numpy(dtype=np.float64)
    y = table.labels[TARGET].to_numpy(dtype=np.float64)
    curve = learning_curve(_methods(table, seed), X, y, SIZES, seed, repeats, tick)
    most = curve.sizes[-1]
    few = max((n for n in curve.sizes if n <= _FEW), default=curve.sizes[0])
    lead = curve_difference(curve, (OURS, most), ("ridge", few), seed)
    summary = summarise_curve(curve, seed)
    return TableCurve(
        points=[
            CurvePoint(table=table.name, **{str(key): value for key, value in row.items()})
            for row in summary.to_dict("records")
        ],
        lead=CurveLead(ours=most, ridge=few, value=lead.value, low=lead.low, high=lead.high),
    )


def n_curve_fits(table: LabelledTable, repeats: int) -> int:
    """How many ticks :func:`examine_curve` takes."""
    sizes = cut_sizes(len(table.labels), SIZES)
    return repeats * FOLDS * len(sizes) * len(_methods(table, 0))


def _methods(table: LabelledTable, seed: int) -> dict[str, FitPredict]:
    names = list(map(str, table.statistics))
    papers = predictor_sets(names)["full_all"]
    return {
        "ridge": on_columns(paper_ridge, names, papers),
        "boosting": on_columns(boosting, names, papers),
        OURS: blended(seed, TARGET),
    }


def on_columns(fit_predict: FitPredict, columns: Sequence[str], seen: Sequence[str]) -> FitPredict:
    """A method that sees only some of the columns of the statistics it is given."""
    places = [columns.index(name) for name in seen]

    def method(X: Array, y: Array, new: Array) -> Array:
        some, others = (np.ascontiguousarray(table[:, places]) for table in (X, new))
        return fit_predict(some, y, others)

    return method
