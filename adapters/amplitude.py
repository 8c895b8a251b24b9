"""How large an edit is as a whole, and making it larger or smaller."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .components.component import Component

_NEUTRAL = {"lora_B": 0.0, "lora_embedding_B": 0.0, "ia3_l": 1.0}
"""Parameters of PEFT's own methods that their edit is linear in, and where it is none."""


class Amplitude:
    """The edit of a PEFT model, at gamma times its size: gamma scales the parameters in which it is
    linear (:attr:`.components.component.Component.amplitude`; B of LoRA, the distance from 1 of IA3).

    Args:
        model: with an adapter.

    """

    def __init__(self, model: nn.Module) -> None:
        self._begun = [(p, p.detach().clone(), neutral) for p, neutral in _linear(model)]

    def check(self) -> None:
        """Refuse an edit of which it is not known how to scale it.

        Raises:
            InputError: nothing says in which parameters it is linear.

        """
        if not self._begun:
            raise InputError(
                "--kl-budget scales what was learnt, and nothing says in which of its parameters the "
                "edit is linear; expected a component with `amplitude`, LoRA or IA3; leave it out"
            )

    @torch.no_grad()
    def set(self, gamma: float) -> None:
        """Make the edit gamma times what it was when this object was made."""
        for parameter, begun, neutral in self._begun:
            parameter.copy_(neutral + gamma * (begun - neutral))


def _linear(model: nn.Module) -> Iterator[tuple[Tensor, float]]:
    for module in model.modules():
        if isinstance(module, Component):
            for name in module.amplitude:
                yield getattr(module, name), 0.0
    for name, parameter in model.named_parameters():
        for kind, neutral in _NEUTRAL.items():
            if f".{kind}." in name and parameter.requires_grad:
                yield parameter, neutral
