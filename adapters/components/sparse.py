"""A sparse linear map between latents."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import Component, Option, register


class Sparse(Component):
    """z' = z + S z, S ``[feature, feature]`` with an L1 penalty: few latents act on few others.

    S is 0 at the start. The penalty is not part of the loss: after an optimiser's step of learning
    rate lr every entry moves towards 0 by lr l1, and stops there (the proximal operator of the L1
    norm), so that entries are exactly 0. Source: N. Parikh and S. Boyd, "Proximal Algorithms"
    (2014), sections 4.2 and 6.5.2.
    """

    options = {"l1": Option(1e-3, 0.0, "strength of the penalty")}  # noqa: RUF012

    def __init__(self, n_features: int, generator: torch.Generator, l1: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(n_features, n_features))
        self.l1 = l1

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        assert latents is not None
        return nn.functional.linear(latents, self.matrix)

    @torch.no_grad()
    def after_step(self, learning_rate: float) -> None:
        """Shrink S by lr l1."""
        self.matrix.copy_(nn.functional.softshrink(self.matrix, learning_rate * self.l1))


register("sparse", Sparse)
