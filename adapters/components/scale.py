"""Scaling each latent."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import Component, register


class Scale(Component):
    """z' = z (1 + s): a feature is amplified, damped or turned off where it fires, and nowhere else.

    s is 0 at the start. Source: H. Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better
    and Cheaper than In-Context Learning", arXiv:2205.05638, section 3.3 (IA3), on latents in place
    of keys, values and activations.
    """

    linear = True
    moves_silent = False
    amplitude = ("scale",)

    def __init__(self, n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(n_features))

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        assert latents is not None
        return latents * self.scale


register("scale", Scale)
