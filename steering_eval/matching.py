"""Coefficients at which features do equally much: each one moves predictions by the same KL.

At equal coefficients some features do a hundred times as much as others, and a comparison of what they
do besides compares sizes. Ours; docs/protocol.md, Matched strength.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 0.02
"""Largest distance of a KL from its target, as a share of it."""
LARGEST_PUSH = 2.0
"""The longest push that is tried, in median norms of the residual stream."""
MOST_STEPS = 20
_BISECT_AFTER = 8
_MOST_GROWTH = 8.0
_SLOPES = (0.25, 8.0)
_SMALLEST = 1e-30


def matched_values(curvatures: Array, target: float, residual_units: Array) -> Array:
    """The coefficients at which KLs are ``target`` to second order, sqrt(target / curvature); no more
    than :data:`LARGEST_PUSH`.
    """
    with np.errstate(divide="ignore"):
        wanted = np.sqrt(target / np.maximum(curvatures, 0.0))
    return np.asarray(np.minimum(wanted, LARGEST_PUSH * residual_units))


class StrengthSearch:
    """Searches, for many features at once, the coefficient at which each reaches a KL.

    In ln(coefficient), ln(KL) rises about as a line of slope 2 as long as the effect is small; the steps
    are secants of it, kept between the strengths that are known to do too little and too much, and halve
    that interval where eight were not enough.

    Args:
        first: where each feature's search begins, above 0.
        largest: the strongest coefficient that is tried for each.
        target: KL in nats.

    """

    def __init__(self, first: Array, largest: Array, target: float) -> None:
        self._target = target
        self._limit = np.log(largest)
        self._next = np.minimum(np.log(first), self._limit)
        self._low = np.full(len(first), -np.inf)
        self._high = np.full(len(first), np.inf)
        self._last = np.full((2, len(first)), np.nan)
        self._steps = 0
        self.divergences = np.full(len(first), np.nan)
        """The KL at each feature's coefficient, as far as it is known."""
        self.open = np.ones(len(first), dtype=bool)
        """Features whose search goes on."""
        self.reached = np.zeros(len(first), dtype=bool)
        """Features that reach the KL, to 2 %."""

    @property
    def values(self) -> Array:
        """The coefficients to measure next; of features whose search is over, the last ones."""
        return np.asarray(np.exp(self._next))

    def tell(self, divergences: Array) -> None:
        """What was measured at :attr:`values`, of the open features in their order."""
        some = np.flatnonzero(self.open)
        self._steps += 1
        self.divergences[some] = divergences
        x = self._next[some]
        y = np.log(np.maximum(divergences, _SMALLEST) / self._target)
        done = np.abs(y) <= np.log1p(TOLERANCE)
        below = y < 0
        self._low[some[below]], self._high[some[~below]] = x[below], x[~below]
        given_up = (below & (x >= self._limit[some])) | (self._steps >= MOST_STEPS)
        self.reached[some[done]] = True
        following = self._step(some, x, y)
        self._last[:, some] = x, y
        closed = done | given_up
        self.open[some[closed]] = False
        self._next[some[~closed]] = following[~closed]

    def _step(self, some: NDArray[np.int64], x: Array, y: Array) -> Array:
        low, high = self._low[some], self._high[some]
        before, there = self._last[:, some]
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = (y - there) / (x - before)
        slope = np.clip(np.where(np.isfinite(slope), slope, 2.0), *_SLOPES)
        following = x - y / slope
        growth = np.log(_MOST_GROWTH)
        following = np.clip(following, x - growth, np.minimum(x + growth, self._limit[some]))
        between = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            width = np.where(between, high - low, 0.0)
            inside = np.clip(following, low + width / 20, high - width / 20)
            middle = (low + high) / 2
        if self._steps >= _BISECT_AFTER:
            inside = middle
        return np.asarray(np.where(between, inside, following))
