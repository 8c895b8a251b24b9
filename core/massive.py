"""Tokens with massive activations."""

from jaxtyping import Bool, Float
from torch import Tensor

MASSIVE = 10.0
"""Times the median length of the stream."""


def is_massive(values: Float[Tensor, "token d"]) -> Bool[Tensor, " token"]:
    """Tokens with massive activations: their stream is over ten times as long as the median (Sun et al.
    2024, arXiv:2402.17762, section 2). Few as they are, they would be most of the variance, and what
    fires there fires at all of them.
    """
    norm = values.float().norm(dim=-1)
    massive: Tensor = norm > MASSIVE * norm.median()
    return massive
