"""Labels that need every logit: sizes, divergences and concentration of the change."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.concentration import MASS_SIZES, effective_number, mass_fractions

COUNT_THRESHOLDS = (0.05, 0.1, 0.2, 0.5)
_CHUNK_ELEMENTS = {"cpu": 1 << 19}
_CHUNK_ELEMENTS_DEFAULT = 1 << 25

COLUMNS = (
    "effect_l1",
    "effect_linf",
    "kl_clean_steered",
    "kl_steered_clean",
    *(f"logit_count_gt_{threshold}" for threshold in COUNT_THRESHOLDS),
    *(f"logit_top{k}_mass_frac" for k in MASS_SIZES),
    "logit_effective_vocab",
)
"""Columns of :func:`vocabulary_measures`, in order."""


def vocabulary_measures(
    change: Float[Tensor, "query vocab"], clean_probabilities: Float[Tensor, " vocab"]
) -> Float[Tensor, "query column"]:
    """Measures of D, steered minus clean logits, of one context's queries; ``COLUMNS`` in order.

    With p the clean next-token distribution and q the steered one, p proportional to exp(l), q to
    exp(l + D): let m = sum p D, s = sum p (e^D - 1), c = sum p (e^D - 1) D. Then KL(p || q) =
    ln(1 + s) - m (``kl_clean_steered``) and KL(q || p) = (m + c)/(1 + s) - ln(1 + s)
    (``kl_steered_clean``), which keeps its digits where D is small.

    Source: protocol.md, axis size (arXiv:2606.08365).
    """
    size = _CHUNK_ELEMENTS.get(change.device.type, _CHUNK_ELEMENTS_DEFAULT)
    rows = max(1, size // change.shape[1])
    return torch.cat([_measure(chunk, clean_probabilities) for chunk in change.split(rows)])


def _measure(change: Tensor, clean: Tensor) -> Tensor:
    growth = change.expm1()
    m = change @ clean
    s = growth @ clean
    c = growth.mul_(change) @ clean
    magnitudes = torch.abs(change, out=growth)
    total = magnitudes.sum(dim=1)
    log_growth = s.log1p()
    return torch.stack(
        [
            total,
            magnitudes.amax(dim=1),
            (log_growth - m).clamp_min(0.0),
            ((m + c) / (1 + s) - log_growth).clamp_min(0.0),
            *((magnitudes > threshold).sum(dim=1) for threshold in COUNT_THRESHOLDS),
            *mass_fractions(magnitudes, total).unbind(1),
            effective_number(magnitudes, total),
        ],
        dim=1,
    )
