"""Stability: whether a feature does the same thing in every context."""

import numpy as np
from jaxtyping import Float

_EPS = 1e-8
_SMALLEST_NORM = 1e-12
_SMALLEST_TRACE = 1e-20


def measure_stability(gram: Float[np.ndarray, "context context"]) -> dict[str, float]:
    """Measure stability and effect_l2 from the Gram matrix K = D D^T of a feature's logit changes.

    With D_c the rows of D and m their mean: norm(D_c) = sqrt(K_cc), D_c . m = mean_j K_cj,
    norm2(m) = mean of K. stability_{abs,signed}: mean of abs(cos) / cos between D_c and m;
    pairwise_cos_{abs,signed}: mean over ordered pairs of distinct contexts; effect_cv: std
    (unbiased) / mean of the norms; anti_aligned_frac: share of contexts with cos < 0;
    effect_pc1_ratio: top eigenvalue / trace of the Gram matrix of centred D. A row of norm 0 has
    cosine 0.

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    norms = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    inner = gram.mean(axis=1)
    mean_norm = np.sqrt(max(inner.mean(), 0.0))
    cosines = inner / np.maximum(norms * mean_norm, _SMALLEST_NORM)
    pairwise = gram / np.maximum(np.outer(norms, norms), _SMALLEST_NORM)
    distinct = pairwise[~np.eye(len(gram), dtype=bool)]
    centred = gram - inner[:, None] - inner[None, :] + inner.mean()
    trace = np.trace(centred)
    top = np.linalg.eigvalsh(centred)[-1] / trace if trace > _SMALLEST_TRACE else 0.0
    return {
        "stability_abs": float(np.abs(cosines).mean()),
        "stability_signed": float(cosines.mean()),
        "pairwise_cos_abs": float(np.abs(distinct).mean()) if len(distinct) else np.nan,
        "pairwise_cos_signed": float(distinct.mean()) if len(distinct) else np.nan,
        "effect_cv": float(norms.std(ddof=1) / (norms.mean() + _EPS)) if len(norms) > 1 else np.nan,
        "anti_aligned_frac": float((cosines < 0).mean()),
        "effect_pc1_ratio": float(top),
        "effect_l2": float(norms.mean()),
    }
