"""Forecasts of a dose for every feature of a dictionary: labels at any strength, how far they hold, and
the strength that a budget of KL allows.

docs/protocol.md, Dose forecast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from .dosing import COUNT, FORECAST, KL, SCALES, Array, DoseCorrection, Doses

EPS = 1e-8
FACTOR = 2.0
"""A forecast of KL holds as long as both ends of its interval are within this factor of it."""
STEPS_PER_DOUBLING = 4
NO_RESPONSE = "a push has no first-order effect"
NEVER_HOLDS = "the interval of KL is wider than a factor of 2 at every strength"
BEYOND = "the budget lies beyond the validity radius"


@dataclass(frozen=True)
class FirstOrder:
    """What linear response says of every feature; magnitudes of strengths are meant throughout."""

    features: NDArray[np.int64]
    strength: float
    """The setting's, at which ``kl`` and ``effect`` are."""
    unit: Array
    """Coefficient of strength 1 of each feature, with the sign of the setting's."""
    kl: Array
    stability: Array
    effect: Array
    strengths: Array
    """Of the doses, rising, ``[dose]``."""
    counts: Array
    """Collateral counts at these, ``[feature, dose]``."""
    covariates: Array
    """``[feature, column]``; none depends on how a feature is scaled."""

    def log_kl(self, strength: float) -> Array:
        """Logarithm of the first-order KL at a strength."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.kl) + 2 * np.log(strength / self.strength))

    def forecast(self, label: str, strength: float) -> Array:
        """First-order forecast of a label at a strength.

        The root of a count is interpolated over the logarithm of the strength by monotone cubics; below
        the least dose it falls with the strength.
        """
        if label == KL:
            return np.asarray(self.kl * (strength / self.strength) ** 2)
        if label == "stability_abs":
            return self.stability
        at = np.log(strength / self.strengths[0])
        if at < 0:
            count = self.counts[:, 0] * (strength / self.strengths[0]) ** 2
        else:
            known = np.log(self.strengths / self.strengths[0])
            count = PchipInterpolator(known, np.sqrt(self.counts), axis=1)(min(at, known[-1])) ** 2
        if label == COUNT:
            return np.asarray(count)
        return np.asarray(count / (self.effect * strength / self.strength + EPS))


class DoseForecast:
    """Forecasts of every feature, fitted on the labels of some at several strengths.

    Args:
        first: what linear response says.
        labels: a row for each dose feature and dose, with ``feature``, ``alpha`` and the labels.
        noise: of each label, its standard deviation at each dose over draws of contexts, common to all
            features, on the label's scale.
        seed: of the folds.
        trust: how much of the level is believed by which measured KL differs from first-order KL at the
            least dose, from 0 to 1: there both are the same in the same contexts, so that it tells the
            labels' contexts from those of linear response.

    Source: docs/protocol.md, Dose forecast.

    """

    def __init__(
        self,
        first: FirstOrder,
        labels: pd.DataFrame,
        noise: Mapping[str, Array],
        seed: int,
        trust: float = 1.0,
    ) -> None:
        self._first = first
        self.labelled = np.unique(labels["feature"].to_numpy())
        """The dose features."""
        self.strengths = first.strengths
        """Of the doses, rising."""
        rows = np.searchsorted(first.features, self.labelled)
        moved = first.kl > 0
        rows = rows[moved[rows]]
        self._has_response = moved
        own = first.covariates[rows]
        self._covariates = np.clip(
            np.where(np.isfinite(first.covariates), first.covariates, np.nanmedian(own, axis=0)),
            np.nanmin(own, axis=0),
            np.nanmax(own, axis=0),
        )
        log_kl = np.stack([first.log_kl(s)[rows] for s in first.strengths], axis=1)
        self._most_log_kl = float(log_kl.max())
        self._corrections = {}
        for label in FORECAST:
            table = labels.assign(alpha=labels["alpha"].abs()).pivot(
                index="feature", columns="alpha", values=label
            )
            to = SCALES[label].to
            forecast = [first.forecast(label, s)[rows] for s in first.strengths]
            self._corrections[label] = DoseCorrection(
                seed, bends_alone=label == KL, trust=trust if label == KL else 1.0
            ).fit(
                Doses(
                    log_strengths=np.log(first.strengths),
                    log_kl=log_kl,
                    first=to(np.stack(forecast, axis=1)),
                    measured=to(table.loc[first.features[rows]].to_numpy(dtype=np.float64)),
                    covariates=self._covariates[rows],
                    noise=noise[label],
                )
            )
        low, high = np.log2(first.strengths[[0, -1]])
        self._grid = 2.0 ** np.linspace(low, high, round((high - low) * STEPS_PER_DOUBLING) + 1)
        self._log_kl = self._kl_on_grid()
        self._radius = self._radii()

    def _kl_on_grid(self) -> Array:
        """Logarithms of forecast KL and its interval's ends on the grid, never falling as the strength
        rises, ``[(value, low, high), feature, strength]``.
        """
        parts = [self._predict(KL, strength) for strength in self._grid]
        return np.asarray(np.maximum.accumulate(np.stack(parts, axis=-1), axis=-1))

    def _predict(self, label: str, strength: float) -> Array:
        """A label of every feature on its scale, ``[(value, low, high), feature]``; NaN: no response."""
        first, some = self._first, self._has_response
        found = np.full((3, len(some)), np.nan)
        found[:, some] = self._corrections[label].predict(
            float(np.log(strength)),
            first.log_kl(strength)[some],
            SCALES[label].to(first.forecast(label, strength))[some],
            self._covariates[some],
        )
        return found

    def _radii(self) -> Array:
        """The largest strength up to which each forecast holds; 0 where it never does."""
        value, low, high = self._log_kl
        log_kl = np.stack([self._first.log_kl(s) for s in self._grid], axis=1)
        with np.errstate(invalid="ignore"):
            holds = (high - value <= np.log(FACTOR)) & (value - low <= np.log(FACTOR))
            holds &= log_kl <= self._most_log_kl + EPS
        count = np.logical_and.accumulate(holds, axis=1).sum(axis=1)
        radii: Array = np.concatenate([[0.0], self._grid])[count]
        return radii

    def kl_at(self, strength: float) -> Array:
        """KL of every feature at a strength, with its interval, ``[(value, low, high), feature]``.

        Between steps its logarithm is linear in that of the strength; below the least dose KL is
        quadratic; above the greatest it is NaN.
        """
        grid = np.log(self._grid)
        at = float(np.log(strength))
        if at > grid[-1] + EPS:
            return np.full(self._log_kl.shape[:2], np.nan)
        if at <= grid[0]:
            return np.asarray(np.exp(self._log_kl[..., 0] + 2 * (at - grid[0])))
        right = int(np.clip(np.searchsorted(grid, at), 1, len(grid) - 1))
        share = (at - grid[right - 1]) / (grid[right] - grid[right - 1])
        left = (1 - share) * self._log_kl[..., right - 1]
        return np.asarray(np.exp(left + share * self._log_kl[..., right]))

    def at(self, strengths: Sequence[float], abstain: bool = True) -> pd.DataFrame:
        """A row for every feature and strength: ``feature``, ``alpha``, ``coefficient``, ``kl``,
        ``stability_abs``, the collateral labels, each with ``_low`` and ``_high``, ``within_radius``.

        Args:
            strengths: with the sign of the setting's.
            abstain: whether forecasts beyond the validity radius are NaN.

        """
        tables = []
        for strength in strengths:
            size = abs(strength)
            within = size <= self._radius * (1 + EPS)
            table = pd.DataFrame(
                {
                    "feature": self._first.features,
                    "alpha": float(strength),
                    "coefficient": size * self._first.unit,
                }
            )
            for label in FORECAST:
                if label == KL:
                    found = self.kl_at(size)
                elif size > self._grid[-1] * (1 + EPS):
                    found = np.full((3, len(table)), np.nan)
                else:
                    found = SCALES[label].back(self._predict(label, size))
                name = "kl" if label == KL else label
                shown = np.where(within, found, np.nan) if abstain else found
                for ending, values in zip(("", "_low", "_high"), shown, strict=True):
                    table[f"{name}{ending}"] = values
            tables.append(table.assign(within_radius=within))
        return pd.concat(tables, ignore_index=True).sort_values(
            ["feature", "alpha"], kind="stable", ignore_index=True
        )

    def recommend(self, budget: float) -> pd.DataFrame:
        """A row for every feature: how far its forecast holds, and the strengths that a budget allows.

        Args:
            budget: of KL, in nats.

        """
        first = self._first
        value, low, high = self._log_kl
        likely = self._strength_of(value, budget)
        cautious = self._strength_of(high, budget)
        reason = np.full(len(first.features), "", dtype=object)
        reason[~(likely <= self._radius)] = BEYOND
        reason[self._radius == 0] = NEVER_HOLDS
        reason[~self._has_response] = NO_RESPONSE
        given = reason == ""
        likely = np.where(given, likely, np.nan)
        cautious = np.where(cautious <= self._radius, cautious, np.nan)
        unknown = np.where(self._radius > 0, self._radius, np.nan)
        sign = float(np.sign(first.unit[0])) or 1.0
        table = pd.DataFrame({"feature": first.features, "kl_budget": budget})
        for name, strength in (
            ("validity_radius", unknown),
            ("recommended", likely),
            ("cautious", cautious),
        ):
            table[f"{name}_alpha"] = sign * strength
            table[f"{name}_coefficient"] = first.unit * strength
        at = np.log(np.where(given, likely, 1.0))
        for name, ends in (("", value), ("_low", low), ("_high", high)):
            found = np.exp(_interpolated(np.log(self._grid), ends, at))
            table[f"recommended_kl{name}"] = np.where(given, found, np.nan)
        table["labelled"] = np.isin(first.features, self.labelled)
        table["reason"] = reason
        return table

    def _strength_of(self, log_kl: Array, budget: float) -> Array:
        """The largest strength of which a KL stays within a budget; infinite where every step does."""
        grid, wanted = np.log(self._grid), float(np.log(budget))
        strengths = np.full(len(log_kl), np.nan)
        for row, own in enumerate(log_kl):
            if not np.isfinite(own).all():
                continue
            above = int(np.searchsorted(own, wanted, side="right"))
            if above == 0:
                strengths[row] = np.exp(grid[0] + (wanted - own[0]) / 2)
            elif above == len(grid):
                strengths[row] = grid[-1] if own[-1] == wanted else np.inf
            else:
                share = (wanted - own[above - 1]) / (own[above] - own[above - 1])
                strengths[row] = np.exp(grid[above - 1] + share * (grid[above] - grid[above - 1]))
        return strengths


def _interpolated(grid: Array, log_kl: Array, at: Array) -> Array:
    """Logarithms of KL, each row at its own place; quadratic in the strength below the grid."""
    found = np.array([np.interp(a, grid, own) for a, own in zip(at, log_kl, strict=True)])
    return np.asarray(found + 2 * np.minimum(at - grid[0], 0.0))


def dose_strengths(kl: Array, strength: float, budget: float) -> Array:
    """The strengths at which dose features are measured: six, each twice the one before, the setting's
    times a power of two; the median feature's first-order KL reaches the budget nearest the last but
    one.

    Args:
        kl: first-order KL at the setting's strength, of the features that may be labelled.
        strength: the setting's.
        budget: of KL, in nats.

    """
    median = float(np.median(kl[kl > 0])) if (kl > 0).any() else budget
    middle = round(float(np.log2(budget / median)) / 2)
    return np.asarray(abs(strength) * 2.0 ** np.arange(middle - 4, middle + 2))
