"""Forward passes that begin at a layer, on the stream that entered it before."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.places import decoder_layers, locate
from ..adapters.taps import tap

Losses = Callable[[Any, Mapping[str, Tensor]], Tensor]
"""Of each text of a batch a loss, from a model and its arguments."""
_SAME = 1e-4
"""Nats a token up to which a loss that begins at a layer counts as the same as that of a whole pass."""


class Replay:
    """Losses of one batch again and again, while only what lies behind some layer changes.

    The layers in front of it are passed over, and the stream that entered it in the first pass is put in.
    Where that does not give the first pass's loss (a model whose layers hand more to each other than the
    stream), every pass is a whole one.

    Args:
        model: a PEFT model.
        hooks: the places that change.
        losses: of a batch.

    """

    def __init__(self, model: Any, hooks: list[str], losses: Losses) -> None:
        self._model, self._losses = model, losses
        base = model.get_base_model()
        first = min(locate(base, hook)[1] for hook in hooks)
        layers = list(decoder_layers(base)[1])
        self._below, self._entered = layers[:first], layers[first]
        self._works = bool(self._below)
        self._proven = False
        self._stream: Tensor | None = None
        self._sizes: dict[nn.Module, int] = {}

    def begin(self, given: Mapping[str, Tensor]) -> Tensor:
        """The losses of a batch, from a whole pass."""
        seen: list[Tensor] = []
        handles = [
            tap(self._entered, True, lambda values: seen.append(values.detach()), first=True)
        ]
        handles += [layer.register_forward_hook(self._see) for layer in self._below]
        try:
            whole = self._losses(self._model, given)
        finally:
            for handle in handles:
                handle.remove()
        self._stream = seen[0]
        if self._works and not self._proven:
            every = torch.ones(len(whole), dtype=torch.bool, device=whole.device)
            again = self.again(given, every)
            tokens = given["attention_mask"].sum(dim=1).to(whole)
            self._works = bool(((again - whole).abs() <= _SAME * tokens).all())
            self._proven = True
        return whole

    def again(self, given: Mapping[str, Tensor], texts: Tensor) -> Tensor:
        """The losses of some texts of that batch, as the model is now; ``texts`` is True for them."""
        some = {name: values[texts] for name, values in given.items()}
        if not self._works:
            return self._losses(self._model, some)
        assert self._stream is not None
        stream = self._stream[texts.to(self._stream.device)]
        with _passed_over(self._below, self._sizes):
            handle = tap(self._entered, True, lambda _: stream, first=True)
            try:
                return self._losses(self._model, some)
            finally:
                handle.remove()

    def _see(self, layer: nn.Module, given: Any, output: Any) -> None:
        self._sizes[layer] = len(output) if isinstance(output, tuple) else 0


@contextmanager
def _passed_over(layers: list[nn.Module], sizes: Mapping[nn.Module, int]) -> Iterator[None]:
    """Let layers give back what enters them: as it is, or as the first of so many things."""
    own = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_unchanged, sizes[layer])
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _unchanged(size: int, *args: Any, **kwargs: Any) -> Any:
    stream = args[0] if args else kwargs["hidden_states"]
    return (stream, *[None] * (size - 1)) if size else stream
