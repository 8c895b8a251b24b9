"""Stability: whether a feature does the same thing in every context."""

import numpy as np
from jaxtyping import Float

_EPS = 1e-8
_SMALLEST_NORM = 1e-12
_SMALLEST_TRACE = 1e-20


def measure_stability(
    gram: Float[np.ndarray, "feature context context"],
) -> dict[str, Float[np.ndarray, " feature"]]:
    """Measure stability and effect_l2 from the Gram matrices K = D D^T of features' logit changes.

    With D_c the rows of D and m their mean: norm(D_c) = sqrt(K_cc), D_c . m = mean_j K_cj,
    norm2(m) = mean of K. stability_{abs,signed}: mean of abs(cos) / cos between D_c and m;
    pairwise_cos_{abs,signed}: mean over ordered pairs of distinct contexts; effect_cv: std
    (unbiased) / mean of the norms; anti_aligned_frac: share of contexts with cos < 0;
    effect_pc1_ratio: top eigenvalue / trace of the Gram matrix of centred D. A row of norm 0 has
    cosine 0.

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    norms = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0))
    inner = gram.mean(axis=-1)
    whole = inner.mean(axis=-1)
    mean_norm = np.sqrt(np.maximum(whole, 0.0))
    cosines = inner / np.maximum(norms * mean_norm[..., None], _SMALLEST_NORM)
    pairwise = gram / np.maximum(norms[..., :, None] * norms[..., None, :], _SMALLEST_NORM)
    n = gram.shape[-1]
    n_pairs = n * (n - 1)
    centred = gram - inner[..., :, None] - inner[..., None, :] + whole[..., None, None]
    trace = np.trace(centred, axis1=-2, axis2=-1)
    moved = trace > _SMALLEST_TRACE
    largest = np.linalg.eigvalsh(centred)[..., -1]
    several = n > 1
    nothing = np.full(whole.shape, np.nan)
    return {
        "stability_abs": np.abs(cosines).mean(axis=-1),
        "stability_signed": cosines.mean(axis=-1),
        "pairwise_cos_abs": _off_diagonal(np.abs(pairwise)) / n_pairs if several else nothing,
        "pairwise_cos_signed": _off_diagonal(pairwise) / n_pairs if several else nothing,
        "effect_cv": norms.std(axis=-1, ddof=1) / (norms.mean(axis=-1) + _EPS)
        if several
        else nothing,
        "anti_aligned_frac": (cosines < 0).mean(axis=-1),
        "effect_pc1_ratio": np.where(moved, largest / np.where(moved, trace, 1.0), 0.0),
        "effect_l2": norms.mean(axis=-1),
    }


def _off_diagonal(
    values: Float[np.ndarray, "feature context context"],
) -> Float[np.ndarray, " feature"]:
    """Sums of what does not stand on the diagonal."""
    return np.asarray(values.sum(axis=(-2, -1)) - np.trace(values, axis1=-2, axis2=-1))
