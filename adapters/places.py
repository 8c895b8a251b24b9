"""Where a hook point lies in a Hugging Face model."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..core.errors import InputError
from ..core.sites import Site, Stage, parse_site

NAMES = ("entry", "heads", "attention", "mlp", "exit")
"""Places of a layer: the stream entering it, its heads' joined outputs, what attention and MLP add
to the stream, the stream leaving it."""
_STAGES = {Stage.HEADS: "heads", Stage.ATTENTION: "attention", Stage.MLP: "mlp"}
_ATTENTION = ("self_attn", "attn", "attention")
_PROJECTIONS = ("c_proj", "o_proj", "dense", "out_proj")
_MLPS = ("mlp", "feed_forward")


@dataclass(frozen=True)
class Place:
    """A place of one layer of a Hugging Face model."""

    layer: str
    """The layer's name among the model's modules, such as ``transformer.h.2``."""
    name: str
    """One of :data:`NAMES`."""
    width: int
    """How many dimensions stand there."""


def find_place(model: nn.Module, hook: str) -> Place:
    """Where a hook point lies.

    Raises:
        InputError: the model has no such place, or it is not known how to find it there.

    """
    path, layers = decoder_layers(model)
    site = parse_site(hook, len(layers))
    if site.stage == Stage.MIDDLE:
        raise InputError(
            f"hook {hook}: no module of the model gives the stream between attention and MLP; expected "
            "hook_resid_pre, hook_resid_post, hook_attn_out, hook_mlp_out or attn.hook_z; use an SAE "
            "of one of these"
        )
    number, name = _layer_and_name(site)
    layer = _base(layers[number])
    width = int(text_config(model).hidden_size)
    if name == "heads":
        width = _inputs(inner_module(layer, name, hook))
    elif name not in ("entry", "exit"):
        inner_module(layer, name, hook)
    return Place(f"{path}.{number}", name, width)


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


def has_layer_norm(model: nn.Module) -> bool:
    """Tell whether the model's norms remove the mean, as LayerNorm does and RMSNorm does not."""
    _, layers = decoder_layers(model)
    return any(isinstance(module, nn.LayerNorm) for module in layers.modules())


def module_at(layer: nn.Module, name: str, hook: str) -> tuple[nn.Module, bool]:
    """The module that stands at a place of a layer, and whether at its input (else its output).

    Raises:
        InputError: see :func:`inner_module`.

    """
    module = layer if name in ("entry", "exit") else inner_module(layer, name, hook)
    return module, name in ("entry", "heads")


def inner_module(layer: nn.Module, name: str, hook: str) -> nn.Module:
    """The module of a layer whose output (for ``heads``: whose input) stands at a place inside it.

    Norms behind attention and MLP (Gemma-2 and -3, OLMo-2) are part of what is added to the stream.

    Raises:
        InputError: it is not known how to find it in such a layer.

    """
    normed = hasattr(layer, "post_feedforward_layernorm")
    if name == "heads":
        attention = _first(layer, _ATTENTION)
        inner = None if attention is None else _first(attention, _PROJECTIONS)
    elif normed:
        norms = {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
        inner = _first(layer, (norms[name],))
    else:
        inner = _first(layer, _ATTENTION if name == "attention" else _MLPS)
    if inner is None:
        raise InputError(
            f"hook {hook}: it is not known where that lies in a {type(layer).__name__}; use an SAE of "
            "hook_resid_pre or hook_resid_post"
        )
    return inner


def _layer_and_name(site: Site) -> tuple[int, str]:
    if site.stage != Stage.ENTRY:
        return site.layer, _STAGES[site.stage]
    # Layer L's exit is layer L + 1's entry, which the last layer does not have.
    if site.hook.endswith("hook_resid_post"):
        return site.layer - 1, "exit"
    return site.layer, "entry"


def _base(layer: nn.Module) -> nn.Module:
    return getattr(layer, "base_layer", layer)


def _first(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _inputs(projection: Any) -> int:
    # GPT-2's projections are of Hugging Face's Conv1D, [input, output].
    inputs = getattr(projection, "in_features", projection.weight.shape[0])
    return int(inputs)
