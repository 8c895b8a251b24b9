"""A constant push along each feature."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import Component, register


class Bias(Component):
    """z' = z + b: a steering vector, sum of b_f d_f over the allowed features, at every token.

    b is 0 at the start. Source: steering vectors, A. Turner et al., "Steering Language Models With
    Activation Engineering", arXiv:2308.10248, section 3; learned, as N. Subramani et al.,
    "Extracting Latent Steering Vectors", arXiv:2205.05124, section 2.
    """

    reads = False
    linear = True
    amplitude = ("bias",)

    def __init__(self, n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_features))

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        return self.bias


register("bias", Bias)
