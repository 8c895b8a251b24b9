"""Hook points: where in a layer an SAE reads and steering writes."""

import re
from dataclasses import dataclass
from enum import IntEnum

from .errors import InputError


class Stage(IntEnum):
    """Places of a layer, in the order in which they are computed."""

    ENTRY = 0
    """The residual stream entering the layer."""
    HEADS = 1
    """The attention heads' outputs, joined, before the output projection (``attn.hook_z``)."""
    ATTENTION = 2
    """What attention adds to the stream."""
    MIDDLE = 3
    """The residual stream between attention and MLP."""
    MLP_INPUT = 4
    """What the MLP reads, or the norm before it gives: transcoders read there, nothing writes there."""
    MLP = 5
    """What the MLP adds to the stream."""


_HOOK = re.compile(r"blocks\.(\d+)\.(\w+(?:\.\w+)?)")
_PLACES = {
    "hook_resid_pre": (0, Stage.ENTRY),
    "attn.hook_z": (0, Stage.HEADS),
    "hook_attn_out": (0, Stage.ATTENTION),
    "hook_resid_mid": (0, Stage.MIDDLE),
    "hook_mlp_out": (0, Stage.MLP),
    "hook_resid_post": (1, Stage.ENTRY),
}
_READ_ONLY = {"mlp.hook_in": (0, Stage.MLP_INPUT), "ln2.hook_normalized": (0, Stage.MLP_INPUT)}
_BEFORE_NORM = "hook_mlp_in"
"""TransformerLens' name of the stream that the norm before the MLP reads; SAELens calls what the MLP
reads so too, where it names the Hugging Face module that gives it."""
_GIVES_MLP_INPUT = (".pre_feedforward_layernorm.output", ".mlp.input")


@dataclass(frozen=True)
class Site:
    """A hook point.

    ``layer`` and ``stage`` say where it stands; ``blocks.L.hook_resid_post`` is the stream entering
    layer L + 1, which for the last layer is what the final norm reads.
    """

    hook: str
    layer: int
    stage: Stage = Stage.ENTRY

    @property
    def order(self) -> tuple[int, int]:
        """Sites that compare lower are computed earlier."""
        return self.layer, int(self.stage)

    @property
    def writing_hook(self) -> str:
        """The hook of TransformerLens' bridge that changes the forward pass at this site.

        Changing the bridge's ``hook_resid_mid`` changes what the MLP reads but not the stream
        beside it, so the middle of the stream is changed through what attention adds to it.
        """
        return self.hook.replace("hook_resid_mid", "hook_attn_out")


def input_hook(hook: str, module: str | None) -> str:
    """The hook that a transcoder reads, by TransformerLens' names.

    Args:
        hook: as SAELens names it.
        module: the Hugging Face module and its side, where SAELens knows them, such as
            ``model.layers.3.pre_feedforward_layernorm.output``.

    """
    if hook.endswith(f".{_BEFORE_NORM}"):
        inside = module is not None and module.endswith(_GIVES_MLP_INPUT)
        return hook.replace(_BEFORE_NORM, "mlp.hook_in" if inside else "hook_resid_mid")
    return hook


def parse_site(hook: str, n_layers: int, reads_only: bool = False) -> Site:
    """The site that a TransformerLens hook name stands for.

    Args:
        hook: the name.
        n_layers: of the model.
        reads_only: whether nothing is to be written there.

    Raises:
        InputError: not a hook at which SAEs are supported, or its layer does not exist.

    """
    places = _PLACES | _READ_ONLY if reads_only else _PLACES
    match = _HOOK.fullmatch(hook)
    if match is None or match[2] not in places:
        raise InputError(
            f"hook {hook!r} is not supported; expected blocks.L. followed by one of "
            f"{', '.join(places)}; set `hook` or use another SAE"
        )
    layer = int(match[1])
    if layer >= n_layers:
        raise InputError(
            f"hook {hook!r} does not exist: the model has layers 0 to {n_layers - 1}; use an SAE "
            "trained on this model, or correct `hook`"
        )
    further, stage = places[match[2]]
    return Site(hook, layer + further, stage)
