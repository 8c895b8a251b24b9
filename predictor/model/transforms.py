"""Transforms of statistics and labels before a model is fitted."""

from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Array = NDArray[np.float64]

_LEAST_SCALE = 1e-12
_ROUNDING = 1e-6
"""Spread of a statistic, as a share of its largest value, that is rounding in float32."""
_TAIL = 0.1


class LogTransform:
    """x -> sign(x) ln(1 + abs(x)/s), s a tenth of the median of abs(x) where x is not 0, then
    standardised (population standard deviation). A column that is constant, but for rounding, becomes 0:
    standardised, what rounding left would weigh as much as any statistic.

    Values outside the range seen in fitting are clipped to it first, so that a feature that is
    unlike all labelled ones (a dead one, say) is not extrapolated to.
    """

    def fit(self, X: Array) -> Self:
        """Take range and scales from the rows of ``X``, ``[feature, statistic]``."""
        self.low, self.high = X.min(axis=0), X.max(axis=0)
        magnitudes = np.where(X == 0, np.nan, np.abs(X))
        some = np.isfinite(magnitudes).any(axis=0)
        self.scale = np.ones(X.shape[1])
        self.scale[some] = np.nanmedian(magnitudes[:, some], axis=0) / 10
        self.scale = np.maximum(self.scale, _LEAST_SCALE)
        logs = self._logs(X)
        varies = np.ptp(X, axis=0) > _ROUNDING * np.abs(X).max(axis=0)
        self.mean, deviation = logs.mean(axis=0), logs.std(axis=0)
        self.spread = np.where(varies & (deviation > 0), deviation, np.inf)
        return self

    def _logs(self, X: Array) -> Array:
        clipped = np.clip(X, self.low, self.high)
        return np.asarray(np.sign(clipped) * np.log1p(np.abs(clipped) / self.scale))

    def __call__(self, X: Array) -> Array:
        return np.asarray((self._logs(X) - self.mean) / self.spread)


class NormalScores:
    """y -> Phi^-1((rank(y) - 1/2) / n), ties at their mean rank (van der Waerden's scores).

    Skewed labels (counts, ratios) become normal, so that a squared error is not ruled by a few
    features; Spearman's correlation, by which rankings are judged, is that of ranks anyway. Between
    labels the map is linear; beyond them it goes on with the mean slope of the outer tenth. It rises
    everywhere, so what is an interval of scores is one of labels.
    """

    def fit(self, y: Array) -> Self:
        """Take the map from labels ``[feature]``."""
        levels, places = np.unique(y, return_inverse=True)
        ranks = rankdata(y)
        self.levels = levels
        self.scores = np.empty(len(levels))
        self.scores[places] = norm.ppf((ranks - 0.5) / len(y))
        self._set_slopes()
        return self

    def _set_slopes(self) -> None:
        if len(self.levels) < 2:
            self._slopes = (0.0, 0.0)
            return
        n = len(self.levels)
        step = max(1, round(_TAIL * n))
        low = (self.levels[step] - self.levels[0]) / (self.scores[step] - self.scores[0])
        high = (self.levels[-1] - self.levels[-1 - step]) / (
            self.scores[-1] - self.scores[-1 - step]
        )
        self._slopes = (float(low), float(high))

    def __call__(self, y: Array) -> Array:
        """Scores of labels; those outside the fitted range get the scores of its ends."""
        return np.asarray(np.interp(y, self.levels, self.scores))

    def back(self, scores: Array) -> Array:
        """Labels of scores."""
        inside = np.interp(scores, self.scores, self.levels)
        below = np.minimum(scores - self.scores[0], 0.0) * self._slopes[0]
        above = np.maximum(scores - self.scores[-1], 0.0) * self._slopes[1]
        return np.asarray(inside + below + above)


class StandardScores(NormalScores):
    """y -> (y - mean) / standard deviation, for a label that is to keep its tails."""

    def fit(self, y: Array) -> Self:
        """Take mean and population standard deviation from labels ``[feature]``."""
        self.levels = np.unique(y)
        if len(self.levels) < 2:
            self.scores, self._slopes = np.zeros(1), (0.0, 0.0)
            return self
        spread = float(y.std())
        self.scores = (self.levels - y.mean()) / spread
        self._slopes = (spread, spread)
        return self


def rank_normalised(statistics: pd.DataFrame, among: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every statistic as its rank within its own dictionary, between 0 and 1: (rank - 1/2)/n.

    Norms, activations and logits differ in scale from model to model; their order within a model is
    what settings share.

    Args:
        statistics: ``[feature, statistic]``.
        among: rows that define the ranks (the labelled or the eligible features); by default those
            of ``statistics``. Others get the share of these rows that lie below them, half of the
            ties included.

    """
    reference = statistics if among is None else among
    columns = {}
    for name in statistics.columns:
        known = np.sort(reference[name].to_numpy(dtype=np.float64))
        values = statistics[name].to_numpy(dtype=np.float64)
        below = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
        columns[name] = below / (2 * len(known))
    return pd.DataFrame(columns, index=statistics.index)
