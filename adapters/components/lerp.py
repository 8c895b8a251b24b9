"""Drawing each latent towards a learned value."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import Component, register


class Lerp(Component):
    """z' = (1 - w) z + w t: linear interpolation towards a target t, w per feature.

    At w = 1 the feature is clamped to t. w and t are 0 at the start. Source: clamping of features,
    A. Templeton et al., "Scaling Monosemanticity", Transformer Circuits (2024), section "Influence
    on Behavior", made soft and learned.
    """

    moves_silent = False
    amplitude = ("weight",)

    def __init__(self, n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_features))
        self.target = nn.Parameter(torch.zeros(n_features))

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        assert latents is not None
        return self.weight * (self.target - latents)


register("lerp", Lerp)
