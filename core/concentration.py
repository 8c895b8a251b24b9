"""How concentrated a vector of logits or activations is: shares of its largest entries, entropy."""

import torch
from jaxtyping import Float
from torch import Tensor

MASS_SIZES = (10, 50, 100, 500)
_SMALLEST = 1e-30


def entropy_of_magnitudes(
    magnitudes: Float[Tensor, "*rows entry"], total: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """Entropy in nats of a / S for non-negative a with S = sum of a; 0 where S is 0.

    Computed as ln S - (sum of a ln a) / S.
    """
    safe = total.clamp_min(_SMALLEST)
    weighted = (magnitudes.clamp_min(_SMALLEST).log_() * magnitudes).sum(dim=-1)
    return torch.where(total > 0, safe.log() - weighted / safe, 0.0)


def effective_number(
    magnitudes: Float[Tensor, "*rows entry"], total: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """exp(entropy of a / S): as how many equal entries a vector counts; 0 for a zero vector."""
    return torch.where(total > 0, entropy_of_magnitudes(magnitudes, total).exp(), 0.0)


def mass_fractions(
    magnitudes: Float[Tensor, "row entry"], total: Float[Tensor, " row"]
) -> Float[Tensor, "row size"]:
    """Share of the sum that lies in the k largest entries, for every k of ``MASS_SIZES``.

    A k above the number of entries takes all of them; 0 for a zero vector.
    """
    entries = magnitudes.shape[-1]
    largest = largest_entries(magnitudes, min(max(MASS_SIZES), entries))
    sums = torch.stack([largest[..., :k].sum(dim=-1) for k in MASS_SIZES], dim=-1)
    return torch.where(total[..., None] > 0, sums / total[..., None].clamp_min(_SMALLEST), 0.0)


def largest_entries(values: Float[Tensor, "row entry"], k: int) -> Float[Tensor, "row k"]:
    """The k largest entries of every row in falling order."""
    return torch.topk(values, k, dim=-1).values
