"""Direct-logit footprint: what a decoder direction would write to the logits by itself."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.concentration import MASS_SIZES, entropy_of_magnitudes, mass_fractions

_BLOCK_ELEMENTS = 1 << 24
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
    n_features, vocabulary = len(decoder), unembedding.shape[1]
    block = max(1, _BLOCK_ELEMENTS // vocabulary)
    # All memory that outlives a block is taken first: small pieces between large ones that come
    # and go would keep the process from giving those back.
    table = unembedding.new_empty(n_features, 4 + len(MASS_SIZES))
    promoted = torch.empty(
        n_features, min(TOP_TOKENS, vocabulary), dtype=torch.long, device=unembedding.device
    )
    memory = unembedding.new_empty(min(block, n_features), vocabulary)
    for start in range(0, n_features, block):
        rows = decoder[start : start + block].to(unembedding.dtype)
        footprint = torch.mm(rows, unembedding, out=memory[: len(rows)])
        found = slice(start, start + len(rows))
        promoted[found] = torch.topk(footprint, promoted.shape[1], dim=1).indices
        table[found, 0] = footprint.norm(dim=1)
        magnitudes = footprint.abs_()
        total = magnitudes.sum(dim=1)
        table[found, 1] = magnitudes.amax(dim=1)
        table[found, 2] = entropy_of_magnitudes(magnitudes, total)
        table[found, 3] = table[found, 2].exp()
        table[found, 4:] = mass_fractions(magnitudes, total).to(table.dtype)
        progress(len(rows))
    names = [
        *(f"direct_logit_{name}" for name in ("l2", "linf", "entropy", "effective_vocab")),
        *(f"direct_top{k}_abs_mass_frac" for k in MASS_SIZES),
    ]
    return {name: table[:, i] for i, name in enumerate(names)}, promoted
