"""Hook points on the residual stream, as the boundary between layers that they stand at."""

import re
from dataclasses import dataclass

from .errors import InputError

_RESIDUAL = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


@dataclass(frozen=True)
class Site:
    """A residual-stream hook point.

    ``boundary`` b is the stream entering layer b: ``blocks.b.hook_resid_pre`` and
    ``blocks.{b-1}.hook_resid_post`` are the same place; b = n_layers is what the final norm reads.
    """

    hook: str
    boundary: int


def parse_site(hook: str, n_layers: int) -> Site:
    """The site that a TransformerLens hook name stands for.

    Raises:
        InputError: not a residual-stream hook, or its layer does not exist.

    """
    match = _RESIDUAL.fullmatch(hook)
    if match is None:
        raise InputError(
            f"hook {hook!r} is not supported; expected blocks.L.hook_resid_pre or "
            "blocks.L.hook_resid_post; set `hook` or use an SAE of the residual stream"
        )
    layer = int(match[1])
    if layer >= n_layers:
        raise InputError(
            f"hook {hook!r} does not exist: the model has layers 0 to {n_layers - 1}; use an SAE "
            "trained on this model, or correct `hook`"
        )
    return Site(hook, layer + (match[2] == "post"))
