"""Conformal intervals from models that were cross-validated already."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import PredefinedSplit

Array = NDArray[np.float64]

_NEIGHBOURS = 101
_CELLS = 4_000_000  # entries of MAPIE's [new row, training row] matrices at a time


def cross_conformal(
    predictions: Array, y: Array, folds: NDArray[np.int64], new: Array, level: float
) -> tuple[Array, Array]:
    """CV+ intervals: with R_i = abs(y_i - m_{-k(i)}(x_i)), the ``1 - level`` quantile over i of
    m_{-k(i)}(x) - R_i, and the ``level`` quantile of m_{-k(i)}(x) + R_i, both with the finite-sample
    correction.

    They cover a new feature that is drawn as the labelled ones were with probability at least
    ``2 level - 1``, and in practice about ``level`` (theorem 4 there, and its experiments).

    Args:
        predictions: predictions of the training rows by each fold's model, ``[row, fold]``.
        y: their labels.
        folds: fold in which each training row was held out.
        new: predictions of new rows by each fold's model, ``[row, fold]``.
        level: coverage, between 0 and 1.

    Returns:
        lower and upper ends, ``[row]``.

    Source: Barber, Candes, Ramdas and Tibshirani 2021 (Annals of Statistics 49), section 3; by MAPIE.

    """
    from mapie.regression import CrossConformalRegressor

    rows = np.arange(len(y), dtype=np.float64)
    mapie = CrossConformalRegressor(
        estimator=_Known(folds), confidence_level=level, method="plus", cv=PredefinedSplit(folds)
    ).fit_conformalize(np.column_stack([rows, predictions]), y)
    size = max(1, _CELLS // len(y))
    ends = np.empty((len(new), 2))
    for first in range(0, len(new), size):
        part = new[first : first + size]
        unseen = np.column_stack([np.full(len(part), -1.0), part])
        ends[first : first + size] = mapie.predict_interval(unseen)[1][:, :, 0]
    return ends[:, 0], ends[:, 1]


class _Known(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Stands for models that are fitted already: rows hold each fold's prediction of them, and fitting
    only determines which fold is left out, from the row numbers in the first column.
    """

    def __init__(self, folds: NDArray[np.int64]) -> None:
        self.folds = folds

    def fit(self, X: Array, y: Array, **_: Any) -> Self:
        """Find the fold of which no row is given; all folds where none is missing."""
        del y
        given = np.unique(self.folds[X[:, 0].astype(np.int64)])
        missing = np.setdiff1d(self.folds, given)
        self.fold_ = int(missing[0]) if len(missing) else -1
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Array) -> Array:
        """Prediction of the fold's model; the mean of all models where no fold was left out."""
        if self.fold_ < 0:
            return np.asarray(X[:, 1:].mean(axis=1))
        return np.asarray(X[:, 1 + self.fold_])


def measured_interval(
    known: Array,
    first: Array,
    second: Array,
    values: Array,
    level: float,
) -> Array:
    """Half the width of intervals of labels: the quantile ``level`` of half the distance of a
    feature's two halves, over the 101 features whose label is closest in rank to the value.

    With an error of variance v in a label, each half of its contexts has 2 v, and half their distance
    v again.

    Args:
        known: labels, ``[feature]``.
        first: the same features' labels on one half of the contexts.
        second: on the other half.
        values: labels whose intervals are wanted, any number of them.
        level: coverage.

    """
    order = np.argsort(known, kind="stable")
    distances = np.abs(first - second)[order] / 2
    size = min(_NEIGHBOURS, len(distances))
    windows = np.lib.stride_tricks.sliding_window_view(distances, size)
    widths = np.quantile(windows, level, axis=1)
    place = np.searchsorted(known[order], values) - size // 2
    return np.asarray(widths[np.clip(place, 0, len(widths) - 1)])
