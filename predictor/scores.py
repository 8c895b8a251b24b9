"""Scores of predictions: out-of-fold, rank correlation, bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.model_selection import KFold

from .blend import FOLDS

Array = NDArray[np.float64]
FitPredict = Callable[[Array, Array, Array], Array]

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile-bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


def percentile_interval(value: float, resampled: Array) -> Interval:
    """The 95 % percentile interval of a bootstrapped figure."""
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def out_of_fold(fit_predict: FitPredict, X: Array, y: Array, seed: int) -> Array:
    """Predictions for every row by models that have not seen it: 5 folds, shuffled, seeded."""
    predictions = np.empty(len(y))
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(X):
        predictions[test] = fit_predict(X[train], y[train], X[test])
    return predictions


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)
