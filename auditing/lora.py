"""A LoRA's modules: which write to the residual stream, which read it, and in which directions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor, nn

from ..adapters.places import decoder_layers
from ..core.errors import InputError
from ..core.networks import load_network
from ..core.settings import Setting
from ..core.tables import read_json

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WRITES = {"o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "out_proj", "fc2", "wo"}
_READS = {
    *("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "fc1"),
    *("c_attn", "c_fc", "query_key_value", "dense_h_to_4h", "fc_in"),
}
"""Names of projections in Hugging Face's models."""
_MLP = ("mlp", "feed_forward", "ffn")
_ATTENTION_NORMS = ("input_layernorm", "ln_1", "self_attn_layer_norm")
_MLP_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm")
"""Norms in front of attention and of the MLP, of which the first that a layer has counts."""
_BEHIND = {False: "post_attention_layernorm", True: "post_feedforward_layernorm"}
"""Norms behind attention (False) and MLP (True), of the families that have them."""


@dataclass(frozen=True)
class Part:
    """What a LoRA changes of one module: W + scaling B A."""

    name: str
    layer: int
    writes: bool
    """True where the module writes to the stream; otherwise it reads it."""
    factor: Float[Tensor, "d rank"]
    """Its directions in the stream with their sizes, factor factor' being (B A)(B A)' of what writes,
    and (B A N)'(B A N) of what reads through a norm N."""


@dataclass(frozen=True)
class Lora:
    """A LoRA, opened over its model."""

    parts: list[Part]
    unknown: list[str]
    """Modules of which it is not known whether they read or write."""
    n_layers: int


def open_lora(folder: Path, setting: Setting) -> Lora:
    """Read an ordinary LoRA of PEFT.

    Raises:
        InputError: it is no LoRA, one with DoRA, or of another model than the setting's.

    """
    config = _config(folder)
    network, _ = load_network(setting, attention=None)
    network.requires_grad_(False)
    width = int(network.get_input_embeddings().weight.shape[1])
    try:
        model = PeftModel.from_pretrained(network, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        named = config.get("base_model_name_or_path")
        raise InputError(
            f"--lora {folder} does not fit model {setting.model.name!r} "
            f"({' '.join(str(error).split())[:120]}); expected a LoRA of that model (it names "
            f"{named!r}); give its own setting"
        ) from None
    _check_whole(folder, model, setting)
    path, layers = decoder_layers(model.get_base_model())
    parts, unknown = [], []
    for name, module in model.get_base_model().named_modules():
        if not isinstance(module, LoraLayer) or "default" not in module.lora_A:
            continue
        found = _part(name, module, path, layers, width)
        if found is None:
            unknown.append(name)
        else:
            parts.append(found)
    return Lora(parts, unknown, len(layers))


def _check_whole(folder: Path, model: Any, setting: Setting) -> None:
    """Refuse weights that PEFT left out, as of layers that the model lacks: it only warns of them."""
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    with safe_open(folder / _WEIGHTS, "pt") as file:
        n_saved = sum(".lora_A." in name or ".lora_embedding_A" in name for name in file.keys())  # noqa: SIM118
    if n_saved != len(layers):
        raise InputError(
            f"--lora {folder} changes {n_saved} modules, of which model {setting.model.name!r} has "
            f"{len(layers)}; expected a LoRA of that model; give its own setting"
        )


def _config(folder: Path) -> Any:
    if not (folder / _CONFIG).is_file():
        raise InputError(
            f"--lora {folder} holds no {_CONFIG}; expected a LoRA as PEFT saves it; correct the name"
        )
    if not (folder / _WEIGHTS).is_file():
        # PEFT would take a pickle in its place.
        raise InputError(f"--lora {folder} has no {_WEIGHTS}; expected one; save it with PEFT anew")
    config = read_json(folder / _CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(
            f"--lora {folder} is of PEFT's type {kind!r}; expected LORA; an adapter on SAE latents is "
            "audited without --lora"
        )
    if config.get("use_dora"):
        raise InputError(
            f"--lora {folder} is a DoRA, which scales weights as a whole; expected a plain LoRA; use one"
        )
    return config


def _part(name: str, module: Any, path: str, layers: nn.ModuleList, width: int) -> Part | None:
    """A module's part; None where it is not known what it does to the stream."""
    if not name.startswith(f"{path}.") or not isinstance(module.lora_A["default"], nn.Linear):
        return None
    number, *inside = name.removeprefix(f"{path}.").split(".")
    kind, is_mlp = inside[-1], any(part in _MLP for part in inside)
    a = module.lora_A["default"].weight.detach().float()
    b = module.lora_B["default"].weight.detach().float() * module.scaling["default"]
    layer = layers[int(number)]
    if kind in _WRITES and len(b) == width:
        written = _through(_behind(layer, is_mlp), b.T).T
        return Part(name, int(number), True, written @ _root(a @ a.T))
    if kind in _READS and a.shape[1] == width:
        read = _through(_in_front(layer, is_mlp), a)
        return Part(name, int(number), False, read.T @ _root(b.T @ b))
    return None


def _in_front(layer: nn.Module, is_mlp: bool) -> nn.Module | None:
    """The norm through which a layer's attention or MLP reads; None: there is none (OLMo-2)."""
    first = next((n for n in _ATTENTION_NORMS if hasattr(layer, n)), None)
    if first is None:
        return None
    names = (*_MLP_NORMS, first) if is_mlp else (first,)
    norm: nn.Module = next(getattr(layer, n) for n in names if hasattr(layer, n))
    return norm


def _behind(layer: nn.Module, is_mlp: bool) -> nn.Module | None:
    """The norm through which it writes (Gemma-2 and 3, OLMo-2); None: there is none."""
    if not hasattr(layer, "post_feedforward_layernorm"):
        return None
    norm: nn.Module = getattr(layer, _BEHIND[is_mlp])
    return norm


def _root(gram: Tensor) -> Tensor:
    """R with R R' = gram."""
    values, vectors = torch.linalg.eigh(gram.double())
    root: Tensor = (vectors * values.clamp(min=0).sqrt()).float()
    return root


@torch.no_grad()
def _through(norm: nn.Module | None, rows: Tensor) -> Tensor:
    """Directions on one side of a norm as directions on its other, but for its scale: its weight, and its
    centring where it centres.
    """
    if norm is None:
        return rows
    width = rows.shape[1]
    like = next(norm.parameters())
    signs = 1000.0 * (1 - 2 * (torch.arange(width) % 2)).to(like)
    gain = ((norm(signs) - norm(-signs)) / 2 * signs.sign()).float().to(rows.device)
    scaled: Tensor = rows * gain
    shifted = norm(signs + 1000.0)
    if torch.allclose(shifted, norm(signs), rtol=1e-2, atol=1e-2):
        scaled = scaled - scaled.mean(dim=1, keepdim=True)
    return scaled
