"""A layer of the model with edits at its places."""

from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ..core.errors import InputError
from .components.component import Component, build
from .places import NAMES, Place, locate
from .positions import Positions, Which
from .slices import Slice
from .taps import tap

NO_MERGE = (
    "an adapter on SAE latents depends on the activations and cannot be merged into weights, nor be "
    "taken out of them; keep it as an adapter, or export it (cleansteer export)"
)


BASE = "__base__"
"""PEFT's name for no adapter, of a row in ``adapter_names``."""


class SaeAdapterLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A decoder layer of a Hugging Face model, edited at its hook points.

    At a place with activations x the adapter leaves x + (z' - z) W_dec, z being the allowed latents
    of x and z' - z what the component says: what the SAE does not reconstruct stays as it is, and so
    do all other latents. Where an SAE normalises its input, the edit is scaled back as its
    reconstruction is. Several active adapters follow one another.

    Computed in the number format of the SAE (float32), whatever that of the model, unless the whole
    is cast afterwards.

    Args:
        base_layer: the layer.

    """

    adapter_layer_names = tuple(f"cleansteer_{name}" for name in NAMES)
    other_param_names = tuple(f"slice_{name}" for name in NAMES)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        for name in (*self.adapter_layer_names, *self.other_param_names):
            self.add_module(name, nn.ModuleDict())
        self._active_adapter: list[str] = []
        self.merged_adapters: list[str] = []
        self._hooks: dict[str, Any] = {}
        self._which: dict[str, Which] = {}
        self._positions: Positions | None = None
        self.row_adapters: list[str] | None = None
        """The adapter of each row of the batch, in place of the active ones; see PEFT's
        ``adapter_names``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            # Models ask their layers for more than a forward pass (Gemma-2: attention_type).
            return getattr(self.base_layer, name)

    def add_edit(
        self,
        adapter: str,
        place: Place,
        part: Slice,
        component: Component,
        which: Which,
        positions: Positions,
    ) -> None:
        """Let an adapter edit one place of the layer, at some tokens of the passes that are seen."""
        name = place.name
        self._which[adapter], self._positions = which, positions
        getattr(self, f"cleansteer_{name}")[adapter] = component
        getattr(self, f"slice_{name}")[adapter] = part
        self._move_adapter_to_device_of_base_layer(adapter)
        if name not in self._hooks:
            module = place.module_in(self.base_layer)
            # Before hooks that are there already, such as those that collect hidden states.
            change = partial(_edit_given, self, name, place.factor)
            self._hooks[name] = tap(module, place.at_input, change, first=True)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[Any, None]:
        device = next(base_layer.parameters()).device
        # PEFT moves nothing where it finds no device; number formats are the SAE's.
        return (None if device.type == "meta" else device), None

    def remove_hooks(self) -> None:
        """Take the edits out of the base layer."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refused: the edit depends on the activations."""
        raise ValueError(NO_MERGE)

    def unmerge(self) -> None:
        """Refused likewise: nothing can have been merged."""
        raise ValueError(NO_MERGE)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own output; the edits are hooks inside it."""
        return self.base_layer(*args, **kwargs)

    def edit(self, place: str, values: Tensor) -> Tensor:
        """Activations at a place after all active adapters' edits there, ``[*any, d]``."""
        if self.disable_adapters:
            return values
        if self.row_adapters is not None:
            return self._edit_rows(place, values, self.row_adapters)
        for adapter in self.active_adapters:
            values = self._edit_by(adapter, place, values, None)
        return values

    def _edit_rows(self, place: str, values: Tensor, adapters: list[str]) -> Tensor:
        """Each row by its own adapter."""
        copies, rest = divmod(len(values), len(adapters))
        if rest or values.ndim < 3:
            raise InputError(
                f"adapter_names has {len(adapters)} names, {place} has values of shape "
                f"{tuple(values.shape)}; expected a name for each row; give as many"
            )
        # Beams and several answers to a prompt stand one behind the other.
        names = [adapter for adapter in adapters for _ in range(copies)]
        after = values.clone()
        for adapter in dict.fromkeys(names):
            if adapter != BASE:
                rows = torch.tensor([name == adapter for name in names], device=values.device)
                after[rows] = self._edit_by(adapter, place, values[rows], rows)
        return after

    def _edit_by(self, adapter: str, place: str, values: Tensor, rows: Tensor | None) -> Tensor:
        """Values after one adapter's edit; ``rows`` says which of the batch they are, None: all."""
        components, parts = getattr(self, f"cleansteer_{place}"), getattr(self, f"slice_{place}")
        if adapter not in components:
            return values
        after = edited(values, parts[adapter], components[adapter])
        chosen = self.tokens(adapter)
        if chosen is None:
            return after
        chosen = chosen if rows is None else chosen[rows.to(chosen.device)]
        if chosen.shape != values.shape[:-1]:
            raise InputError(
                f"values at tokens of shape {tuple(values.shape[:-1])} in a forward pass of "
                f"{tuple(chosen.shape)}: it is not known which of them adapter {adapter!r} "
                "edits; expected the same; let it edit all"
            )
        return torch.where(chosen.to(values.device)[..., None], after, values)

    def tokens(self, adapter: str) -> Tensor | None:
        """True for the tokens of the current forward pass that an adapter edits, ``[row, token]``; None:
        all.
        """
        which = self._which[adapter]
        if which.every or self._positions is None:
            return None
        return self._positions.edited(which)


def find_layer(model: nn.Module, hook: str) -> tuple[SaeAdapterLayer, str]:
    """The adapter's layer of a hook point and the name of the place there; of a PEFT model, or what is
    inside it.
    """
    tuned: Any = model
    base: nn.Module = tuned.get_base_model() if hasattr(model, "get_base_model") else model
    path, _, place = locate(base, hook)
    layer = base.get_submodule(path)
    assert isinstance(layer, SaeAdapterLayer)
    return layer, place


def component_at(model: nn.Module, hook: str, adapter: str) -> Component:
    """An adapter's component at a hook point."""
    layer, place = find_layer(model, hook)
    found: Component = getattr(layer, f"cleansteer_{place}")[adapter]
    return found


def part_at(model: nn.Module, hook: str, adapter: str) -> Slice:
    """The part of the SAE through which an adapter edits a hook point."""
    layer, place = find_layer(model, hook)
    found: Slice = getattr(layer, f"slice_{place}")[adapter]
    return found


def fresh_component(model: Any, hook: str, adapter: str) -> Component:
    """The component as it is made, before anything is learnt."""
    config = model.peft_config[adapter]
    number = [str(target["hook"]) for target in config.targets].index(hook)
    n_features = part_at(model, hook, adapter).n_features
    return build(config.component, n_features, config.component_options, config.seed + number)


def edited(values: Tensor, part: Slice, component: Component) -> Tensor:
    """Add (z' - z) W_dec."""
    with torch.autocast(values.device.type, enabled=False):
        latents, unit = None, None
        if component.reads or part.normalisation != "none":
            read, unit = part.read(values)
            latents = part.encode(read) if component.reads else None
        change: Tensor = component(latents) @ part.decoder
        if unit is not None:
            change = change * unit
        return values + change.to(values.dtype)


def _edit_given(layer: SaeAdapterLayer, place: str, factor: float, given: Tensor) -> Tensor:
    """What a module shall give, of which ``factor`` times is added to the stream."""
    if factor == 1.0:
        return layer.edit(place, given)
    added = given.float() * factor
    return given + ((layer.edit(place, added) - added) / factor).to(given.dtype)
