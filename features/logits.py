"""Direct-logit footprint: what a decoder direction would write to the logits by itself."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.concentration import MASS_SIZES, entropy_of_magnitudes, mass_fractions

_BLOCK_ELEMENTS = 1 << 24
TOP_TOKENS = 10


def measure_direct_logits(
    decoder: Float[Tensor, "feature d"],
    unembedding: Float[Tensor, "d vocab"],
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[dict[str, Float[Tensor, " feature"]], Int[Tensor, "feature token"]]:
    """Measure r_f = d_f W, in blocks of features.

    Returns the columns direct_logit_l2, _linf, _entropy (of abs(r_f) / sum), _effective_vocab (its
    exponential), direct_top{10,50,100,500}_abs_mass_frac, and the ids of the ``TOP_TOKENS`` most
    promoted tokens.

    Source: docs/protocol.md, Feature statistics (arXiv:2606.08365).
    """
    n_features, vocabulary = len(decoder), unembedding.shape[1]
    at_once = max(1, _BLOCK_ELEMENTS // vocabulary)
    # All memory that outlives a block is taken first: small pieces between large ones that come
    # and go would keep the process from giving those back.
    table = unembedding.new_empty(n_features, 4 + len(MASS_SIZES))
    promoted = torch.empty(
        n_features, min(TOP_TOKENS, vocabulary), dtype=torch.long, device=unembedding.device
    )
    memory = unembedding.new_empty(min(at_once, n_features), vocabulary)
    for start in range(0, n_features, at_once):
        rows = decoder[start : start + at_once].to(unembedding.dtype)
        footprint = torch.mm(rows, unembedding, out=memory[: len(rows)])
        block = slice(start, start + len(rows))
        promoted[block] = torch.topk(footprint, promoted.shape[1], dim=1).indices
        table[block, 0] = footprint.norm(dim=1)
        magnitudes = footprint.abs_()
        total = magnitudes.sum(dim=1)
        table[block, 1] = magnitudes.amax(dim=1)
        table[block, 2] = entropy_of_magnitudes(magnitudes, total)
        table[block, 3] = table[block, 2].exp()
        table[block, 4:] = mass_fractions(magnitudes, total).to(table.dtype)
        progress(len(rows))
    names = [
        *(f"direct_logit_{name}" for name in ("l2", "linf", "entropy", "effective_vocab")),
        *(f"direct_top{k}_abs_mass_frac" for k in MASS_SIZES),
    ]
    return {name: table[:, i] for i, name in enumerate(names)}, promoted
