"""Direct-logit footprint: what a decoder direction would write to the logits by itself."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.concentration import MASS_SIZES, entropy_of_magnitudes, mass_fractions

_BLOCK_ELEMENTS = 1 << 23
TOP_TOKENS = 10


def direct_logits(
    decoder: Float[Tensor, "feature d"],
    unembedding: Float[Tensor, "d vocab"],
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[dict[str, Float[Tensor, " feature"]], Tensor]:
    """Statistics of r_f = d_f W, in blocks of features.

    Returns the columns direct_logit_l2, _linf, _entropy (of abs(r_f) / sum), _effective_vocab (its
    exponential), direct_top{10,50,100,500}_abs_mass_frac, and the ids of the ``TOP_TOKENS`` most
    promoted tokens, ``[feature, token]``.

    Source: protocol.md, family direct logit (arXiv:2606.08365).
    """
    vocabulary = unembedding.shape[1]
    block = max(1, _BLOCK_ELEMENTS // vocabulary)
    parts: list[Tensor] = []
    promoted: list[Tensor] = []
    for start in range(0, len(decoder), block):
        footprint = decoder[start : start + block].to(unembedding.dtype) @ unembedding
        promoted.append(torch.topk(footprint, min(TOP_TOKENS, vocabulary), dim=1).indices)
        norm = footprint.norm(dim=1)
        magnitudes = footprint.abs_()
        total = magnitudes.sum(dim=1)
        entropy = entropy_of_magnitudes(magnitudes, total)
        parts.append(
            torch.cat(
                [
                    torch.stack([norm, magnitudes.amax(dim=1), entropy, entropy.exp()], dim=1),
                    mass_fractions(magnitudes, total),
                ],
                dim=1,
            )
        )
        progress(len(footprint))
    names = [
        *(f"direct_logit_{name}" for name in ("l2", "linf", "entropy", "effective_vocab")),
        *(f"direct_top{k}_abs_mass_frac" for k in MASS_SIZES),
    ]
    table = torch.cat(parts)
    return {name: table[:, i] for i, name in enumerate(names)}, torch.cat(promoted)
