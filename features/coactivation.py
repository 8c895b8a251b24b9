"""Co-activation: with which other features a feature fires."""

import math

import numpy as np
import scipy.sparse
from numpy.typing import NDArray


def panel_of(firings: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """The ``size`` features that fire most often, ties to the lower index."""
    return np.argsort(-firings, kind="stable")[:size]


def coactivation(
    patterns: scipy.sparse.csr_array, firings: NDArray[np.float64], panel_size: int
) -> dict[str, NDArray[np.float64]]:
    """coact_entropy_norm and coact_count_mean from the firing patterns, ``[token, feature]``.

    With c_fj the tokens at which f and panel feature j both fire (f counts with itself where it is
    in the panel): coact_entropy_norm = entropy of c_f / sum(c_f), over ln(panel size), 0 where
    there is none; coact_count_mean = sum_j c_fj / firings of f.

    Source: protocol.md, family co-activation (arXiv:2606.08365).
    """
    panel = panel_of(firings, panel_size)
    counts = patterns.astype(np.float64)
    joint = scipy.sparse.csr_array(counts.T.tocsr() @ counts.tocsc()[:, panel])
    totals = np.asarray(joint.sum(axis=1)).ravel()
    logarithms = joint.copy()
    logarithms.data = joint.data * np.log(joint.data)
    weighted = np.asarray(logarithms.sum(axis=1)).ravel()
    safe = np.maximum(totals, 1.0)
    entropy = np.where(totals > 0, np.log(safe) - weighted / safe, 0.0)
    normaliser = math.log(len(panel)) if len(panel) > 1 else 1.0
    return {
        "coact_entropy_norm": entropy / normaliser,
        "coact_count_mean": totals / np.maximum(firings, 1.0),
    }
