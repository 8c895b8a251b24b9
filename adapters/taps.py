"""Hooks at a module's input or output, wherever it keeps the stream's values."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

Change = Callable[[Tensor], Tensor | None]
"""From what stands there to what shall; None: it stays."""
_STREAM = "hidden_states"


def tap(module: nn.Module, at_input: bool, change: Change, first: bool = False) -> Any:
    """Put a function at a module's input or output; returns the hook's handle.

    The values are the first positional argument, else ``hidden_states``; and the output, or the first
    of several.

    Args:
        module: any.
        at_input: whether at its input.
        change: what is done; it sees a tensor.
        first: whether before the hooks that are there already.

    """
    # Partials, not closures: a copied model has hooks of its own then.
    if at_input:
        hook = partial(_before, change)
        return module.register_forward_pre_hook(hook, prepend=first, with_kwargs=True)
    return module.register_forward_hook(partial(_after, change), prepend=first)


def _before(
    change: Change, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    changed = change(args[0] if args else kwargs[_STREAM])
    if changed is None:
        return None
    return ((changed, *args[1:]), kwargs) if args else (args, kwargs | {_STREAM: changed})


def _after(change: Change, module: nn.Module, inputs: Any, output: Any) -> Any:
    several = isinstance(output, tuple)
    changed = change(output[0] if several else output)
    return (changed, *output[1:]) if several and changed is not None else changed
