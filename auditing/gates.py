"""Gates on the edit of each feature: 1 as it was trained, 0 switched off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.layer import component_at, part_at
from ..adapters.objective import ADAPTER


class Gate:
    """Multiplies what a component adds to each latent, and sees it.

    Args:
        n_features: of the component.

    """

    def __init__(self, n_features: int, device: torch.device) -> None:
        self.open = torch.ones(n_features, device=device)
        """Of each feature; may take a gradient."""
        self.edit: Tensor | None = None
        """What was added in the last pass, before the gate: ``[row, token, feature]``, or ``[feature]``
        where it is the same at every token."""
        self.latents: Tensor | None = None
        """The latents that it was added to; None where none are read."""

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], edit: Tensor) -> Tensor:
        self.edit = edit.detach()
        self.latents = None if inputs[0] is None else inputs[0].detach()
        return edit * self.open


@contextmanager
def gated(model: Any, hooks: list[str], adapter: str = ADAPTER) -> Iterator[dict[str, Gate]]:
    """Gates on an adapter's components, by hook point."""
    gates, handles = {}, []
    for hook in hooks:
        part = part_at(model, hook, adapter)
        gates[hook] = Gate(part.n_features, part.decoder.device)
        handles.append(component_at(model, hook, adapter).register_forward_hook(gates[hook]))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()
