"""Saved bias adapters over tiny networks, and how to read and steer these by hand."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from gguf import GGUFReader
from peft import PeftModel, get_peft_model
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor, nn

TOKENS = tiny.contexts(3)
FEATURES = [2, 7, 11]


def sae_folder(
    shelf: Path, architecture: str = "standard", width: int = tiny.WIDTH, **changes: Any
) -> Path:
    """A directory with an SAE that names no hook, made at the first call."""
    folder = shelf / "-".join([architecture, str(width), *map(str, changes.values())])
    if not folder.exists():
        world.save_sae(tiny.sae(architecture, "", width=width, **changes), folder)
    return folder


def target(folder: Path, hook: str, features: Sequence[int] | None = None) -> dict[str, Any]:
    """A target of an adapter."""
    return {"hook": hook, "sae": {"path": str(folder)}, "features": features}


def network_folder(shelf: Path, family: str = "gpt2") -> Path:
    """A directory with a network, made at the first call."""
    folder = shelf / family
    if not folder.exists():
        families.network(family, torch.float32).save_pretrained(folder)
    return folder


def adapter(
    shelf: Path, folder: Path, targets: list[dict[str, Any]], family: str = "gpt2", **config: Any
) -> PeftModel:
    """A network with an adapter of random biases, which is saved in the folder."""
    network: Any = families.network(family, torch.float32)
    network.name_or_path = str(network_folder(shelf, family))
    settings = {"component": "bias"} | config
    made = get_peft_model(network, SaeAdapterConfig(targets=targets, **settings))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in made.named_parameters():
        if "cleansteer_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    made.save_pretrained(folder)
    return made.eval()


def logits(model: Any) -> Tensor:
    return model(TOKENS, use_cache=False).logits


def added(model: PeftModel, hook: str) -> Tensor:
    """What stands at a hook with the adapter minus what stands there without, at every token."""
    base: Any = model.get_base_model()
    _, number, site = hook.split(".", 2)
    layer = families.layers_of(base)[int(number)].base_layer

    def read() -> Tensor:
        seen: list[Tensor] = []
        if site == "hook_resid_pre":  # the adapter edits what enters the layer inside its wrapper
            handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        elif site == "hook_attn_out" and not hasattr(layer, "pre_feedforward_layernorm"):
            names = ("attn", "attention", "self_attn")
            attention = next(getattr(layer, name) for name in names if hasattr(layer, name))
            handle = attention.register_forward_hook(lambda *call: seen.append(call[2][0].clone()))
        else:
            return families.read_all(base, TOKENS, hook)
        base(TOKENS, use_cache=False)
        handle.remove()
        return seen[0]

    changed = read()
    with model.disable_adapter():
        return changed - read()


def steered(network: nn.Module, pushes: Mapping[nn.Module, Tensor]) -> Tensor:
    """Logits with a vector added to the outputs of modules, at every token."""

    def hook(vector: Tensor) -> Any:
        def change(_: nn.Module, inputs: object, output: Any) -> Any:
            if isinstance(output, tuple):
                return (output[0] + vector, *output[1:])
            return output + vector

        return change

    handles = [module.register_forward_hook(hook(push)) for module, push in pushes.items()]
    try:
        return logits(network)
    finally:
        for handle in handles:
            handle.remove()


def directions(path: Path) -> dict[int, Tensor]:
    """A control vector as the package ``gguf`` reads it."""
    found = {}
    for tensor in GGUFReader(path).tensors:
        kind, layer = tensor.name.split(".")
        assert kind == "direction"
        assert tensor.tensor_type.name == "F32"
        assert tensor.data.ndim == 1
        found[int(layer)] = torch.from_numpy(np.array(tensor.data))
    return found


def field(path: Path, key: str) -> Any:
    return GGUFReader(path).fields[key].contents()


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """Let SAELens load a directory's SAE by a release and id, which are returned."""

    def load(release: str, sae_id: str, device: str = "cpu") -> SAE:
        assert (release, sae_id) == ("a/release", "layer_2")
        return SAE.load_from_disk(str(folder), device=device)

    monkeypatch.setattr(SAE, "from_pretrained", load)
    return {"release": "a/release", "id": "layer_2"}


def lm_eval_push(path: Path) -> tuple[str, Tensor]:
    """The module, and the vector that lm-eval 0.4.9 adds to its output, as its source says."""
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["loader"], row["action"]) == ("sae_lens", "add")
    decoder = SAE.from_pretrained(row["sparse_model"], row["sae_id"]).W_dec.detach()
    vector = decoder[int(row["feature_index"])]
    return row["hookpoint"], float(row["steering_coefficient"]) * vector


def tensors(path: Path) -> dict[str, Tensor]:
    return load_file(path)


def decoded(sae: Any, edit: Mapping[str, Any]) -> Tensor:
    """The vector that a sidecar's edit describes, by SAELens' own decoder."""
    latents = torch.zeros(sae.cfg.d_sae)
    latents[edit["features"]] = torch.tensor(edit["scale"])
    return sae.decode(latents) - sae.decode(torch.zeros_like(latents))
