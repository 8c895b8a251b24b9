"""A network of one hidden layer between latents."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import WIDEST, Component, Option, register


class Mlp(Component):
    """z' = z + W_2 relu(W_1 z + b_1) + b_2.

    W_2, b_1 and b_2 are 0 at the start, W_1 is normal with variance 1 / n_features. Source:
    bottleneck adapters, N. Houlsby et al., "Parameter-Efficient Transfer Learning for NLP",
    arXiv:1902.00751, section 2.1.
    """

    options = {"hidden": Option(64, 1, "width of the hidden layer", WIDEST)}  # noqa: RUF012
    amplitude = ("outer", "outer_bias")

    def __init__(self, n_features: int, generator: torch.Generator, hidden: int) -> None:
        super().__init__()
        drawn = torch.randn(hidden, n_features, generator=generator) / n_features**0.5
        self.inner = nn.Parameter(drawn)
        self.inner_bias = nn.Parameter(torch.zeros(hidden))
        self.outer = nn.Parameter(torch.zeros(n_features, hidden))
        self.outer_bias = nn.Parameter(torch.zeros(n_features))

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        assert latents is not None
        hidden = torch.relu(nn.functional.linear(latents, self.inner, self.inner_bias))
        return nn.functional.linear(hidden, self.outer, self.outer_bias)

    def by_feature(self) -> Mapping[str, Float[Tensor, " feature"]]:
        return {
            "reads": self.inner.norm(dim=0),
            "writes": self.outer.norm(dim=1),
            "bias": self.outer_bias,
        }


register("mlp", Mlp)
