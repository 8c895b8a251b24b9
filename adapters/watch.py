"""How large an adapter's edits are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .components.component import Component


class Watch:
    """Sees what components add to latents while it is open."""

    def __init__(self) -> None:
        self.edits: list[Tensor] = []

    def edit_size(self, mask: Tensor | None) -> Tensor:
        """Sum over allowed latents of abs(z' - z), mean over tokens, summed over places.

        Args:
            mask: 1 for tokens, 0 for padding, which does not count, ``[batch, token]``; None: there
                is no padding.

        Raises:
            ValueError: the mask is of another shape than the edits.

        """
        total: Tensor = torch.zeros(())
        for edit in self.edits:
            sizes = edit.abs().sum(dim=-1)
            if mask is not None and sizes.ndim:  # a constant edit has one size for all tokens
                if mask.shape != sizes.shape:
                    raise ValueError(
                        f"attention_mask of shape {tuple(mask.shape)} does not fit edits at "
                        f"{tuple(sizes.shape)} tokens"
                    )
                sizes = sizes[mask.to(sizes.device).bool()]
            total = total.to(sizes.device) + sizes.mean()
        return total


@contextmanager
def watching(model: nn.Module, gradients: bool = True) -> Iterator[Watch]:
    """Watch every component of a model; with ``gradients`` only in passes that have them."""
    watch = Watch()

    def see(component: nn.Module, inputs: Any, edit: Tensor) -> None:
        if not gradients or torch.is_grad_enabled():
            watch.edits.append(edit)

    handles = [
        module.register_forward_hook(see)
        for module in model.modules()
        if isinstance(module, Component)
    ]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()
