"""A sparse linear map between latents."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import Component, Option, register


class Sparse(Component):
    """z' = z + S z, S ``[feature, feature]`` with an L1 penalty: few latents act on few others.

    S is 0 at the start. What is minimised is the loss plus l1 times the sum of |S|. The penalty is no
    part of the loss that an optimiser sees: each of its steps is followed by the penalty's proximal
    operator in the metric of that step (see :mod:`.steps`), so that entries whose gradient stays
    below l1 are exactly 0. Source: N. Parikh and S. Boyd, "Proximal Algorithms" (2014), sections 4.2
    and 6.5.2; under Adam, J. Yun et al., "Adaptive Proximal Gradient Methods for Structured Neural
    Networks", NeurIPS 2021, section 3.
    """

    options = {"l1": Option(1e-3, 0.0, "strength of the penalty")}  # noqa: RUF012
    amplitude = ("matrix",)

    def __init__(self, n_features: int, generator: torch.Generator, l1: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(n_features, n_features))
        self.l1 = l1

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        assert latents is not None
        return nn.functional.linear(latents, self.matrix)

    def by_feature(self) -> Mapping[str, Float[Tensor, " feature"]]:
        return {"reads": self.matrix.norm(dim=0), "writes": self.matrix.norm(dim=1)}

    def shrunk(self) -> Mapping[nn.Parameter, float]:
        return {self.matrix: self.l1}


register("sparse", Sparse)
