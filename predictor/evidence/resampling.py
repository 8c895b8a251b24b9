"""Bootstrap over features for figures of ranks: all resamples at once.

A resample is given by how often it holds each feature. Ranks within it follow by counting, without
sorting it, and sums over it are weighted sums over the features.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def multiplicities(draws: NDArray[np.int64]) -> Array:
    """How often every resample holds every row, ``[resample, n]``.

    Args:
        draws: row numbers, ``[resample, n]``, each below n.

    """
    resamples, n = draws.shape
    cells = draws + n * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * n).reshape(resamples, n)
    return counts.astype(np.float64)


def bootstrap(n: int, resamples: int, seed: int | Sequence[int]) -> Array:
    """Multiplicities of ``resamples`` draws of n rows with replacement, ``[resample, n]``."""
    return multiplicities(np.random.default_rng(seed).integers(n, size=(resamples, n)))


def resampled_ranks(values: Array, counts: Array) -> Array:
    """Average ranks of the rows within each resample, less their mean (n + 1)/2, ``[resample, n]``.

    A row that a resample holds w times gets the mean of the ranks of its w copies and of all that tie
    with them. The rank of a row that it does not hold has no meaning: its weight is 0.

    Args:
        values: values to rank, ``[n]``.
        counts: how often each resample holds each row, ``[resample, n]``.

    """
    distinct, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(len(distinct)))
    held = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(held, axis=1) - (held - 1) / 2
    return np.asarray(ranks[:, code] - (len(values) + 1) / 2)


def resampled_spearman(a: Array, b: Array, counts: Array) -> Array:
    """Spearman's correlation of ``a`` and ``b``, ``[n]``, within each resample, ``[resample]``.

    0 where one side is constant in the resample.
    """
    x, y = resampled_ranks(a, counts), resampled_ranks(b, counts)
    norm = np.sqrt(weighted_dot(x, x, counts) * weighted_dot(y, y, counts))
    return np.asarray(weighted_dot(x, y, counts) / np.maximum(norm, 1e-300))


def weighted_dot(x: Array, y: Array, counts: Array) -> Array:
    """Inner products of the rows of ``x`` and ``y`` under the weights, ``[resample]``."""
    return np.asarray(np.einsum("rn,rn,rn->r", x, y, counts))
