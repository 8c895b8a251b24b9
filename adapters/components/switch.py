"""A push that a feature's own activation switches on."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .component import Component, Option, register


class Switch(Component):
    """z' = z + a sigmoid((z - theta) / T): a push a where the feature is above a learned threshold.

    a is 0 at the start. Source: conditional steering, B. W. Lee et al., "Programming Refusal with
    Conditional Activation Steering", arXiv:2409.05907, section 3, with the condition soft and the
    feature its own.
    """

    options = {  # noqa: RUF012
        "threshold": Option(1.0, float("-inf"), "theta at the start, in units of activation"),
        "temperature": Option(0.25, 1e-3, "T, how soft the threshold is, in units of activation"),
    }
    amplitude = ("push",)

    def __init__(
        self, n_features: int, generator: torch.Generator, threshold: float, temperature: float
    ) -> None:
        super().__init__()
        self.push = nn.Parameter(torch.zeros(n_features))
        self.threshold = nn.Parameter(torch.full((n_features,), float(threshold)))
        self.temperature = temperature

    def forward(self, latents: Float[Tensor, "*any feature"] | None) -> Tensor:
        assert latents is not None
        return self.push * torch.sigmoid((latents - self.threshold) / self.temperature)


register("switch", Switch)
