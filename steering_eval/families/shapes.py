"""Shapes of what passes through a layer."""

from jaxtyping import Float
from torch import Tensor

Stream = Float[Tensor, "context position d"]
JoinedHeads = Float[Tensor, "context position heads"]
QueryHeads = Float[Tensor, "context head position d_head"]
KeyHeads = Float[Tensor, "context key_head position d_head"]
"""Heads of keys or values: where queries share them, there are fewer."""
