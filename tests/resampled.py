"""The bootstrap as it is told: every resample gathered, ranked and correlated."""

import numpy as np
from scipy.stats import rankdata


def bootstrapped_spearman(a: np.ndarray, b: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Spearman of ``a[draw]`` and ``b[draw]`` for every row of draws; 0 where one is constant."""
    x, y = (rankdata(values[draws], axis=1) for values in (a, b))
    x, y = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (x, y))
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), norm, out=np.zeros(len(draws)), where=norm > 0)
