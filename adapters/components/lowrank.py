"""A linear map of low rank between latents."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import WIDEST, Component, Option, register


class LowRank(Component):
    """z' = z + B A z, A ``[rank, feature]``, B ``[feature, rank]``.

    B is 0 at the start, A is normal with variance 1 / n_features. Source: E. Hu et al., "LoRA:
    Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, section 4.1, between latents.
    """

    options = {"rank": Option(8, 1, "rank of the map", WIDEST)}  # noqa: RUF012
    amplitude = ("up",)

    def __init__(self, n_features: int, generator: torch.Generator, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(
            torch.randn(rank, n_features, generator=generator) / n_features**0.5
        )
        self.up = nn.Parameter(torch.zeros(n_features, rank))

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        assert latents is not None
        return nn.functional.linear(nn.functional.linear(latents, self.down), self.up)

    def by_feature(self) -> Mapping[str, Float[Tensor, " feature"]]:
        return {"reads": self.down.norm(dim=0), "writes": self.up.norm(dim=1)}


register("lowrank", LowRank)
