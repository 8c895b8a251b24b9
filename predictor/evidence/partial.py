"""Partial rank correlations: what a statistic tells of a label beyond the controls."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.errors import InputError
from .resampling import bootstrap, resampled_ranks, weighted_dot
from .scores import percentile_interval

Array = NDArray[np.float64]

RESAMPLES = 2000
COLUMNS = ("statistic", "rho", "low", "high", "p", "p_holm", "p_bh")
_NOTHING = 1e-12
"""Share of a column's sum of squared ranks below which the controls have left nothing of it. Rounding
leaves some 1e-26; two features that change places leave 24/n^3, more than this up to 10,000."""


def partial_rank_correlations(
    statistics: pd.DataFrame, controls: pd.DataFrame, y: pd.Series, seed: int
) -> pd.DataFrame:
    """Spearman correlation of every statistic with a label, given the controls.

    Statistics, controls and label are turned into average ranks; an ordinary least-squares fit of
    the controls' ranks, with an intercept, is taken from the statistic's and from the label's; the
    residuals' Pearson correlation is ``rho``. One row a statistic, in their order:

    - ``low``, ``high``: 95 % percentile bootstrap over features; each of the 2,000 resamples is
      ranked and fitted anew, the same resamples for all statistics.
    - ``p``: two-sided, of t = rho sqrt(f / (1 - rho^2)) with f = n - 2 - k degrees of freedom, k the
      number of controls that are not constant nor determined by others (the rank of their ranks).
    - ``p_holm``, ``p_bh``: corrected over the rows of this table by Holm and by Benjamini and
      Hochberg. The protocol corrects within each setting, target and control set: make one call for
      each.

    A statistic of which the controls leave nothing has no row and does not count in the correction:
    no label could contradict its null hypothesis. Examples are constant statistics, the controls
    themselves, and monotone functions of a control, as the entropy of firing is of the rate. Where
    the controls leave nothing of the label, the table has no rows. A resample in which nothing is
    left counts as correlation 0.

    Args:
        statistics: ``[feature, statistic]``.
        controls: ``[feature, control]``, possibly without columns.
        y: label, ``[feature]``.
        seed: seeds the resampling.

    Raises:
        ValueError: the three are not of the same features in the same order.
        InputError: a value is not finite, or the features are no more than k + 2.

    Source: the replication (Bishnoi 2026; docs/protocol.md, Predictor sets).

    """
    if not (statistics.index.equals(controls.index) and statistics.index.equals(y.index)):
        raise ValueError("statistics, controls and label are not of the same features in one order")
    for table in (statistics, controls, y.to_frame(str(y.name))):
        _check_finite(table)
    n = len(y)
    # The first row holds every feature once: what is observed goes the same way as its resamples.
    counts = np.concatenate([np.ones((1, n)), bootstrap(n, RESAMPLES, seed)])
    basis: list[Array] = []
    for column in controls:
        basis.append(_unit(_residual(controls[column], basis, counts), counts))
    degrees = n - 2 - sum(bool(direction[0].any()) for direction in basis)
    if degrees < 1:
        raise InputError(
            f"{n} features leave no degrees of freedom beside {controls.shape[1]} controls, expected "
            f"at least {n + 1 - degrees}; label more features"
        )
    label = _unit(_residual(y, basis, counts), counts)
    rows = []
    for name in statistics if label[0].any() else ():
        left = _unit(_residual(statistics[name], basis, counts), counts)
        if left[0].any():
            rho = np.clip(weighted_dot(left, label, counts), -1, 1)
            interval = percentile_interval(rho[0], rho[1:])
            rows.append((name, interval.value, interval.low, interval.high))
    table = pd.DataFrame(rows, columns=list(COLUMNS[:4]))
    return _with_p_values(table.astype(dict.fromkeys(COLUMNS[1:4], np.float64)), degrees)


def _residual(values: pd.Series, basis: list[Array], counts: Array) -> Array:
    """Ranks within each resample, less their projections on the orthonormal basis."""
    ranks = resampled_ranks(values.to_numpy(dtype=np.float64), counts)
    residual = ranks
    for direction in basis:
        residual = residual - weighted_dot(residual, direction, counts)[:, None] * direction
    whole, left = (weighted_dot(v, v, counts) for v in (ranks, residual))
    residual[left <= _NOTHING * whole] = 0.0
    return residual


def _unit(residual: Array, counts: Array) -> Array:
    """Scaled to norm 1 in each resample; 0 stays 0."""
    norm = np.sqrt(weighted_dot(residual, residual, counts))
    return residual / np.where(norm > 0, norm, 1.0)[:, None]


def _with_p_values(table: pd.DataFrame, degrees: int) -> pd.DataFrame:
    if table.empty:
        return table.assign(p=[], p_holm=[], p_bh=[]).astype(dict.fromkeys(COLUMNS[4:], np.float64))
    from scipy.stats import t
    from statsmodels.stats.multitest import multipletests

    rho = table["rho"].to_numpy()
    with np.errstate(divide="ignore"):
        statistic = np.abs(rho) * np.sqrt(degrees / (1 - rho**2))
    p = 2 * t.sf(statistic, degrees)
    return table.assign(
        p=p,
        p_holm=multipletests(p, method="holm")[1],
        p_bh=multipletests(p, method="fdr_bh")[1],
    )


def _check_finite(table: pd.DataFrame) -> None:
    finite = np.isfinite(table.to_numpy(dtype=np.float64))
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise InputError(
            f"column {table.columns[column]!r} holds {table.iloc[row, column]} for feature "
            f"{table.index[row]}, expected finite numbers; compute it anew or leave the column out"
        )
