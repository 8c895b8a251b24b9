"""The features that a predictor is least sure about: the next labels that teach it most."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.threads import in_parallel
from .blend import blended
from .checks import finite_values
from .sets import statistics_of
from .targets import CLEAN_SCORE

COMMITTEE = 10
"""Blends that vote, each fitted on its own resample of the labelled features."""


def uncertainty(
    statistics: pd.DataFrame, labels: pd.DataFrame, candidates: pd.DataFrame, seed: int
) -> pd.Series:
    """How much a committee of predictors disagrees about the ``clean_score`` of every candidate.

    Each of the 10 members is fitted on a bootstrap resample of the labelled features; the figure is
    the population standard deviation of their predictions.

    Args:
        statistics: ``[feature, statistic]`` of the labelled features, indexed by feature.
        labels: their labels with ``clean_score``, in the same order.
        candidates: ``[feature, statistic]`` of features without a label, indexed by feature.
        seed: seeds the resampling and the members.

    Raises:
        InputError: a value is not a finite number.
        ValueError: labels and statistics are of different features.

    Source: query by committee (Seung, Opper and Sompolinsky, COLT 1992), with a committee made by
    bagging (Abe and Mamitsuka, ICML 1998).

    """
    if not statistics.index.equals(labels.index):
        raise ValueError("statistics and labels are not of the same features in the same order")
    columns = statistics_of(statistics.columns)
    if not len(candidates):
        return pd.Series(index=candidates.index, dtype=np.float64, name="uncertainty")
    X = finite_values(statistics, columns, "statistics")
    new = finite_values(candidates, columns, "statistics")
    y = finite_values(labels, [CLEAN_SCORE], "labels")[:, 0]
    draws = np.random.default_rng(seed).integers(len(labels), size=(COMMITTEE, len(labels)))

    def vote(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return blended(seed, CLEAN_SCORE)(X[rows], y[rows], new)

    votes = in_parallel(vote, draws)
    return pd.Series(np.std(votes, axis=0), index=candidates.index, name="uncertainty")
