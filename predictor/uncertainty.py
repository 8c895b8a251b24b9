"""Which features a predictor is least sure about: where the next label tells it most."""

import numpy as np
import pandas as pd

from .models import ModularityPredictor
from .targets import CLEAN_SCORE

COMMITTEE = 10
"""Predictors that vote, each fitted on its own resample of the labelled features."""


def uncertainty(
    statistics: pd.DataFrame, labels: pd.DataFrame, candidates: pd.DataFrame, seed: int
) -> pd.Series:
    """Population standard deviation over a committee of its predictions of ``clean_score``, of
    every candidate.

    Each of the 10 members is fitted on a bootstrap resample of the labelled features.

    Args:
        statistics: ``[feature, statistic]`` of the labelled features, indexed by feature.
        labels: their labels with ``clean_score``, in the same order.
        candidates: ``[feature, statistic]`` of features without a label, indexed by feature.
        seed: of the resampling and of the members.

    Source: query by committee (Seung, Opper and Sompolinsky, COLT 1992), with a committee made by
    bagging (Abe and Mamitsuka, ICML 1998).

    """
    if not statistics.index.equals(labels.index):
        raise ValueError("statistics and labels are not of the same features in the same order")
    draws = np.random.default_rng(seed).integers(len(labels), size=(COMMITTEE, len(labels)))
    votes = [
        ModularityPredictor((CLEAN_SCORE,), seed)
        .fit(statistics.iloc[rows], labels.iloc[rows])
        .predict(candidates)[CLEAN_SCORE]
        .to_numpy(dtype=np.float64)
        for rows in draws
    ]
    return pd.Series(np.std(votes, axis=0), index=candidates.index, name="uncertainty")
