"""What linear response says of a label at some strength, corrected on a few measured doses.

docs/protocol.md, Dose forecast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .targets import ABSOLUTE

Array = NDArray[np.float64]

KL = "kl_clean_steered"
COUNT = ABSOLUTE.spread
FORECAST = (KL, "stability_abs", COUNT, "collateral_per_effect")
"""Labels that are forecast at every strength."""
LEVEL = 0.9
_FOLDS = 5
_PENALTY = 3.0
_KNEES = (0.01, 0.1, 1.0)
"""Nats of first-order KL from which on a correction may bend."""
_LEAST = 1e-12
_LEAST_ERROR = 1e-3
_AT_ONCE = 1 << 22  # entries of [labelled feature, new feature] matrices
_NORMAL = 1.6448536269514722  # 95 % quantile


def _logit(x: Array) -> Array:
    inside = np.clip(x, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


@dataclass(frozen=True)
class Scale:
    """On what scale a label's forecast is corrected: one on which its errors are about alike."""

    to: Callable[[Array], Array]
    back: Callable[[Array], Array]


SCALES = {
    KL: Scale(lambda x: np.log(np.maximum(x, _LEAST)), np.exp),
    "stability_abs": Scale(_logit, lambda x: 1 / (1 + np.exp(-x))),
    COUNT: Scale(np.sqrt, lambda x: np.maximum(x, 0.0) ** 2),
    "collateral_per_effect": Scale(np.sqrt, lambda x: np.maximum(x, 0.0) ** 2),
}


@dataclass(frozen=True)
class Doses:
    """One label of the dose features, measured at rising strengths, beside its first-order forecast."""

    log_strengths: Array
    """``[dose]``; of the magnitude."""
    log_kl: Array
    """Logarithm of the first-order KL, ``[feature, dose]``: the dose in the model's own units."""
    first: Array
    """First-order forecast of the label, ``[feature, dose]``, on its scale (:data:`SCALES`)."""
    measured: Array
    """The label itself, likewise."""
    covariates: Array
    """``[feature, column]``; none depends on how a feature is scaled."""
    noise: Array
    """``[dose]``: standard deviation, on the label's scale, of what another draw of contexts does to
    all features alike."""


class DoseCorrection:
    """Corrects first-order forecasts of one label, with 90 % intervals.

    On the label's scale, measured minus forecast is a ridge over bends of the first-order KL, a few
    statistics and their product with one of the bends. Errors are measured by cross-validation over
    features, never over doses, as multiples of their usual size at that first-order KL, and between
    doses they are interpolated over the logarithm of the strength; CV+ makes intervals of them, widened
    by what another draw of contexts does to all features alike.

    Source: docs/protocol.md, Dose forecast. Barber, Candes, Ramdas and Tibshirani 2021 (Annals of
    Statistics 49), section 3: CV+.
    """

    def __init__(self, seed: int, bends_alone: bool = False, trust: float = 1.0) -> None:
        self._seed = seed
        self._trust = trust
        """How much of the level that measured and first-order label differ by at the least dose is
        believed, from 0 to 1."""
        self._bends_alone = bends_alone
        """Whether the forecast itself is no column: for KL, of which the bends are made."""

    def fit(self, doses: Doses) -> Self:
        """Fit one correction for each fold of the dose features, and measure errors on the others."""
        n = len(doses.measured)
        self._doses = doses
        self._folds = np.random.default_rng(self._seed).permutation(n) % min(_FOLDS, n)
        error = doses.measured - doses.first
        self._doubted = (1 - self._trust) * float(error[:, 0].mean())
        columns = self._columns(doses.log_kl, doses.first, doses.covariates)
        parts = [self._folds != fold for fold in range(self._folds.max() + 1)]
        self._ridges = [_Ridge.fit(columns[others], error[others]) for others in parts]
        left = np.empty_like(error)
        for ridge, others in zip(self._ridges, parts, strict=True):
            left[~others] = error[~others] - ridge.predict(columns[~others])
        self._sizes = [_Ridge.fit(*_sizes(doses.log_kl[o], left[o])) for o in parts]
        self._scores = np.empty_like(error)
        for size, others in zip(self._sizes, parts, strict=True):
            usual = np.exp(size.predict(_bends(doses.log_kl[~others])))
            self._scores[~others] = np.abs(left[~others]) / usual
        return self

    def predict(
        self, log_strength: float, log_kl: Array, first: Array, covariates: Array
    ) -> tuple[Array, Array, Array]:
        """Forecast and both ends of its 90 % interval at one strength, on the label's scale.

        Args:
            log_strength: within the measured ones; outside them the nearest one's errors are taken.
            log_kl: logarithm of the first-order KL at this strength, ``[feature]``.
            first: first-order forecast there, on the label's scale.
            covariates: as for the dose features.

        """
        known = self._doses.log_strengths
        at = float(np.clip(log_strength, known[0], known[-1]))
        scores = np.array([np.interp(at, known, own) for own in self._scores])
        noise = _NORMAL * float(np.interp(at, known, self._doses.noise))
        ends = []
        for part in np.array_split(
            np.arange(len(first)), max(1, len(first) * len(scores) // _AT_ONCE)
        ):
            columns = self._columns(log_kl[part, None], first[part, None], covariates[part])
            usual_columns = _bends(log_kl[part, None])
            moves = np.stack([ridge.predict(columns)[:, 0] for ridge in self._ridges])
            usual = np.stack([np.exp(size.predict(usual_columns)[:, 0]) for size in self._sizes])
            moves -= self._doubted
            value = moves.mean(axis=0)
            low, high = _cross_conformal(moves[self._folds], usual[self._folds] * scores[:, None])
            low = value - np.hypot(np.maximum(value - low, 0.0), noise)
            high = value + np.hypot(np.maximum(high - value, 0.0), noise)
            ends.append(first[part] + np.stack([value, low, high]))
        value, low, high = np.concatenate(ends, axis=1)
        return value, low, high

    def _columns(self, log_kl: Array, first: Array, covariates: Array) -> Array:
        """``[feature, dose, column]``."""
        bends = _bends(log_kl)
        shape = (*log_kl.shape, covariates.shape[1])
        known = np.broadcast_to(covariates[:, None], shape)
        more = () if self._bends_alone else (first[..., None],)
        return np.concatenate([bends, *more, known, known * bends[..., 1:2]], axis=-1)


def _cross_conformal(moves: Array, widths: Array) -> tuple[Array, Array]:
    """Ends of CV+ intervals from each labelled feature's fold's prediction and its error."""
    n = len(moves)
    low = max(int(np.floor((1 - LEVEL) * (n + 1))) - 1, 0)
    high = min(int(np.ceil(LEVEL * (n + 1))) - 1, n - 1)
    below = np.partition(moves - widths, low, axis=0)[low]
    above = np.partition(moves + widths, high, axis=0)[high]
    return below, above


def _bends(log_kl: Array) -> Array:
    """Columns that are 0 for a small dose and linear in the logarithm of a large one."""
    return np.stack([np.log1p(np.exp(log_kl) / knee) for knee in _KNEES], axis=-1)


def _sizes(log_kl: Array, error: Array) -> tuple[Array, Array]:
    return _bends(log_kl), np.log(np.abs(error) + _LEAST_ERROR)


@dataclass(frozen=True)
class _Ridge:
    """Ridge on standardised columns; a feature counts once, however many doses it has."""

    mean: Array
    deviation: Array
    weights: Array
    intercept: float

    @classmethod
    def fit(cls, columns: Array, y: Array) -> Self:
        flat, n_doses = columns.reshape(-1, columns.shape[-1]), y.shape[1]
        mean, deviation = flat.mean(axis=0), flat.std(axis=0)
        z = (flat - mean) / np.maximum(deviation, _LEAST)
        intercept = float(y.mean())
        gram = z.T @ z / n_doses + _PENALTY * np.eye(z.shape[1])
        weights = np.linalg.solve(gram, z.T @ (y.ravel() - intercept) / n_doses)
        return cls(mean, np.maximum(deviation, _LEAST), weights, intercept)

    def predict(self, columns: Array) -> Array:
        """``[feature, dose]`` of ``[feature, dose, column]``."""
        return np.asarray((columns - self.mean) / self.deviation @ self.weights + self.intercept)
