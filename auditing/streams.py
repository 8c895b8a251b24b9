"""What stands at hook points of an adapted model while texts run through it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from ..adapters.places import find_place
from ..adapters.taps import tap


@contextmanager
def watched(model: Any, hooks: Iterable[str], edited: bool) -> Iterator[dict[str, Tensor]]:
    """What stood at hook points in the last forward pass, by hook, ``[row, token, d]``.

    Args:
        model: a PEFT model.
        hooks: TransformerLens' names of hook points.
        edited: whether behind the edit that the adapter makes there, or in front of it.

    """
    base = model.get_base_model()
    seen: dict[str, Tensor] = {}
    handles: list[Any] = []
    try:
        for hook in dict.fromkeys(hooks):
            place = find_place(base, hook)
            module = place.module_in(base.get_submodule(place.layer))
            keep = partial(_keep, seen, hook, place.factor)
            handles.append(tap(module, place.at_input, keep, first=not edited))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keep(seen: dict[str, Tensor], hook: str, factor: float, values: Tensor) -> None:
    seen[hook] = values.detach() * factor
