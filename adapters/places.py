"""Where a hook point lies in a Hugging Face model."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.sites import Site, Stage, parse_site
from .proof import base_layer, prove
from .sketches import sketch

NAMES = ("entry", "heads", "attention", "mlp", "exit")
"""Places of a layer: the stream entering it, its heads' joined outputs, what attention and MLP add
to the stream, the stream leaving it."""
_STAGES = {Stage.HEADS: "heads", Stage.ATTENTION: "attention", Stage.MLP: "mlp"}


@dataclass(frozen=True)
class Place:
    """A place of one layer of a Hugging Face model."""

    layer: str
    """The layer's name among the model's modules, such as ``transformer.h.2``."""
    name: str
    """One of :data:`NAMES`."""
    width: int
    """How many dimensions stand there."""
    module: str
    """The module that gives it, by its name in the layer; empty: the layer itself."""
    factor: float = 1.0
    """What is added to the stream, in units of what the module gives (Granite: .22); 1 elsewhere."""

    @property
    def at_input(self) -> bool:
        """Whether the place is the module's input; otherwise it is the output."""
        return self.name in ("entry", "heads")

    def module_in(self, layer: nn.Module) -> nn.Module:
        """The module in a layer, be it wrapped or not."""
        return base_layer(layer).get_submodule(self.module)


_proven: "WeakKeyDictionary[nn.Module, dict[str, Place]]" = WeakKeyDictionary()


def find_place(model: nn.Module, hook: str) -> Place:
    """Where a hook point lies, proven once on the model itself (see :func:`.proof.prove`), or, where it
    has no values, on a sketch of it.

    Raises:
        InputError: the model has no such place, or what is found there is not what the hook names.

    """
    path, number, name = locate(model, hook)
    layers = decoder_layers(model)[1]
    layer = base_layer(layers[number])
    known = _proven.setdefault(layer, {})
    if name not in known:
        width = int(text_config(model).hidden_size)
        if next(model.parameters()).device.type == "meta":
            small = sketch(model, hook)
            width_there = int(text_config(small).hidden_size)
            found = prove(small, decoder_layers(small)[1], number, name, width_there, hook)
        else:
            found = prove(model, layers, number, name, width, hook)
        module, factor = found
        if name == "heads":
            width = _inputs(layer.get_submodule(module))
        known[name] = Place(path, name, width, module, factor)
    return known[name]


def locate(model: nn.Module, hook: str) -> tuple[str, int, str]:
    """The layer of a hook point by its name among the model's modules and its number, and the place
    there, unproven.

    Raises:
        InputError: the model has no such layer, or no module has what the hook names.

    """
    path, layers = decoder_layers(model)
    site = parse_site(hook, len(layers))
    if site.stage == Stage.MIDDLE:
        raise InputError(
            f"hook {hook}: no module of the model gives the stream between attention and MLP; expected "
            "hook_resid_pre, hook_resid_post, hook_attn_out, hook_mlp_out or attn.hook_z; use an SAE "
            "of one of these"
        )
    number, name = layer_and_name(site)
    return f"{path}.{number}", number, name


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The model's layers and their name.

    Raises:
        InputError: there is no list of as many modules as the configuration has layers.

    """
    n_layers = int(text_config(model).num_hidden_layers)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    # Not those of what sees pictures.
    given: Any = model
    decoder: nn.Module = getattr(given, "get_decoder", lambda: None)() or model
    inside = {id(module) for module in decoder.modules()}
    lists = [item for item in lists if id(item[1]) in inside] or lists
    if not lists:
        raise InputError(
            f"model of type {text_config(model).model_type!r}: no list of its {n_layers} layers is "
            "found; expected a causal language model of Hugging Face; use one"
        )
    return min(lists, key=lambda item: item[0].count("."))


def text_config(model: nn.Module) -> Any:
    """The configuration of a model's text part."""
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise InputError(
            f"a {type(model).__name__} has no configuration; expected a causal language model of "
            "Hugging Face; use one"
        )
    return config.get_text_config()


@torch.no_grad()
def has_layer_norm(model: nn.Module, hook: str) -> bool:
    """Tell whether the model's norms remove the mean, as LayerNorm does and RMSNorm does not: by what
    they do, as families have classes of their own.
    """
    if next(model.parameters()).device.type == "meta":
        model = sketch(model, hook)
    layer = base_layer(decoder_layers(model)[1][0])
    like = next(layer.parameters())
    width = int(text_config(model).hidden_size)
    drawn = torch.randn(2, 1, width, generator=torch.Generator().manual_seed(0))
    probe = drawn.to(like.device, like.dtype)
    return any(_removes_mean(module, probe) for module in layer.modules())


def _removes_mean(module: nn.Module, probe: Tensor) -> bool:
    """Whether a module gives what is shifted and scaled the same values as what is not."""
    if any(True for _ in module.children()) or any(p.ndim > 1 for p in module.parameters()):
        return False
    try:
        # Not the module itself: hooks are of no use here.
        given, shifted = (module.forward(x) for x in (probe, 2 * probe + 3))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, NotImplementedError):
        return False  # no norm
    if not isinstance(given, Tensor) or given.shape != probe.shape:
        return False
    varies = bool((given - given.mean(dim=-1, keepdim=True)).abs().max() > 0.1)
    return varies and torch.allclose(given, shifted, rtol=0.05, atol=0.05)


def layer_and_name(site: Site) -> tuple[int, str]:
    """The number of the layer that a hook point lies in, and the name of the place there."""
    if site.stage != Stage.ENTRY:
        return site.layer, _STAGES[site.stage]
    # Layer L's exit is layer L + 1's entry, which the last layer does not have.
    if site.hook.endswith("hook_resid_post"):
        return site.layer - 1, "exit"
    return site.layer, "entry"


def _inputs(projection: Any) -> int:
    # GPT-2's projections are of Hugging Face's Conv1D, [input, output].
    inputs = getattr(projection, "in_features", projection.weight.shape[0])
    return int(inputs)
