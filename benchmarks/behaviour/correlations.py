"""Which scores go with which behaviour, how surely, and how strong a tie would have been seen."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from ...predictor.evidence.controls import stepped_up
from ...predictor.evidence.resampling import bootstrap, resampled_spearman
from ...predictor.evidence.scores import RESAMPLES, percentile_interval, spearman
from .measures import MEASURES

Array = NDArray[np.float64]

LEVEL = 0.05
POWER = 0.8
_VARIANCE = 1.06
"""Times 1 / (n - 3): the variance of Fisher's z of Spearman's rho (Fieller, Hartley and Pearson 1957)."""


def p_value(rho: float, n: int) -> float:
    """Two-sided, of no correlation: Fisher's z of rho has the standard deviation sqrt(1.06 / (n - 3))."""
    z = math.atanh(float(np.clip(rho, -1 + 1e-12, 1 - 1e-12)))
    return float(2 * norm.sf(abs(z) / math.sqrt(_VARIANCE / (n - 3))))


def detectable(n: int, level: float = LEVEL) -> float:
    """The correlation that n features show, at a level, in four of five such experiments."""
    distance = norm.isf(level / 2) + norm.ppf(POWER)
    return math.tanh(float(distance) * math.sqrt(_VARIANCE / (n - 3)))


def holm(p_values: Array) -> Array:
    """P-values of several hypotheses at once (Holm 1979): none below is believed falsely in more than the
    level of such families.
    """
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def reliability(halves: Sequence[pd.DataFrame], measure: str) -> float:
    """Of a measure over all prompts: Spearman between its values on two halves of them, stepped up."""
    first, second = (half[measure].to_numpy(dtype=np.float64) for half in halves)
    return stepped_up(max(spearman(first, second), 0.0))


def correlate(scores: pd.DataFrame, measured: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A row for every score and measure: ``rho`` (Spearman over features) with its 95 % bootstrap
    interval ``low``, ``high``, ``p``, and ``p_holm`` among the measures of one score.

    Args:
        scores: a column for every score, by feature.
        measured: the measures of the same features in the same order.
        seed: of the bootstrap.

    """
    n = len(scores)
    counts = bootstrap(n, RESAMPLES, seed)
    tables = []
    for score in scores:
        rows = []
        for measure in MEASURES:
            pair = (t.to_numpy(dtype=np.float64) for t in (scores[score], measured[measure]))
            a, b = pair
            found = percentile_interval(spearman(a, b), resampled_spearman(a, b, counts))
            rows.append(
                {
                    "score": score,
                    "measure": measure,
                    "rho": found.value,
                    "low": found.low,
                    "high": found.high,
                    "p": p_value(found.value, n),
                }
            )
        table = pd.DataFrame(rows)
        tables.append(table.assign(p_holm=holm(table["p"].to_numpy())))
    return pd.concat(tables, ignore_index=True)
