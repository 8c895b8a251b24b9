"""Tiny models with adapters on SAEs in folders."""

import copy
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import families
import full_sae
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.layer import SaeAdapterLayer
from peft import PeftModel, get_peft_model
from sae_lens import SAE
from torch import Tensor, nn

N_FEATURES = 96
FEATURES = [0, 3, 11, 17, 25, 40, 58, 77]
"""Allowed ones; 0 always fires."""
TOKENS = tiny.contexts(4)
FAMILIES = ("gpt2", "gpt_neox", "gemma2", "llama")
EXACT = 1e-5  # float32 after four layers, relative to the largest logit
GRADIENT = 1e-4  # float32, sums over all tokens
SITES = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")


@cache
def _untouched(family: str, dtype: torch.dtype) -> nn.Module:
    return families.network(family, dtype)


def network(family: str = "gpt2", dtype: torch.dtype = torch.float32) -> Any:
    """A network of its own."""
    return copy.deepcopy(_untouched(family, dtype))


@cache
def width_at(family: str, hook: str) -> int:
    """How many dimensions stand at a hook of a family's networks."""
    return families.width_at(_untouched(family, torch.float32), hook)


@cache
def _sae(folder: str) -> SAE:
    sae = SAE.load_from_disk(folder)
    sae.turn_off_forward_pass_hook_z_reshaping()
    return sae.requires_grad_(False)


def logits(model: Any, tokens: Tensor = TOKENS) -> Tensor:
    return model(tokens, use_cache=False).logits


@cache
def base_logits(family: str, dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.no_grad():
        return logits(_untouched(family, dtype))


def target(
    shelf: Path,
    hook: str,
    architecture: str = "standard",
    features: Sequence[int] | None = FEATURES,
    centred: bool = False,
    width: int = tiny.WIDTH,
    **changes: object,
) -> dict[str, Any]:
    """A target of a configuration, its SAE saved in the shelf."""
    label = "-".join([architecture, str(width), *(f"{k}={v}" for k, v in changes.items())])
    folder = shelf / label
    if not folder.exists():
        world.save_sae(tiny.sae(architecture, "", width=width, **changes), folder)  # type: ignore[arg-type]
    return {
        "hook": hook,
        "sae": {"path": str(folder), "centred": centred},
        "features": None if features is None else list(features),
    }


def adapter(
    targets: Sequence[dict[str, Any]], component: str = "scale", **changes: Any
) -> SaeAdapterConfig:
    return SaeAdapterConfig(targets=list(targets), component=component, **changes)


def adapt(model: Any, config: SaeAdapterConfig, random: bool = True) -> PeftModel:
    """A model with an adapter, its parameters random if so wished."""
    made = get_peft_model(model, copy.deepcopy(config))
    if random:
        randomise(made)
    return made


def parameters(model: nn.Module, adapter_name: str = "default") -> dict[str, nn.Parameter]:
    """An adapter's parameters, by name."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if "cleansteer_" in name and f".{adapter_name}." in name
    }


@torch.no_grad()
def randomise(model: nn.Module, adapter_name: str = "default", seed: int = 5) -> None:
    """Give every parameter of an adapter values that change what the model says."""
    generator = torch.Generator().manual_seed(seed)
    found = parameters(model, adapter_name)
    assert found
    for parameter in found.values():
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(drawn / (parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 1))


def layers(model: nn.Module) -> list[SaeAdapterLayer]:
    return [module for module in model.modules() if isinstance(module, SaeAdapterLayer)]


def edits(
    config: SaeAdapterConfig, model: nn.Module, adapter_name: str = "default"
) -> list[full_sae.Edit]:
    """The full-SAE way of an adapter, with the same values."""
    made = []
    found = parameters(model, adapter_name)
    for target in config.targets:
        sae = _sae(target["sae"]["path"])
        of_target = {
            name.rpartition(".")[2]: parameter
            for name, parameter in found.items()
            if _is_of(name, target["hook"])
        }
        features = target["features"]
        made.append(
            full_sae.Edit(
                target["hook"],
                sae,
                range(sae.cfg.d_sae) if features is None else sorted(features),
                config.component,
                of_target,
                config.component_options,
                bool(target["sae"]["centred"]),
            )
        )
    return made


_PLACES = dict(zip(SITES, ("entry", "exit", "attention", "mlp", "heads"), strict=True))


def _is_of(name: str, hook: str) -> bool:
    _, layer, site = hook.split(".", 2)
    return f".{layer}.cleansteer_{_PLACES[site]}." in name


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return float((found - expected).abs().max() / expected.abs().max())


def hooks_of(model: nn.Module) -> list[Any]:
    """All forward hooks that stand on a model's modules."""
    dictionaries: Iterable[Any] = (
        hooks
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    )
    return [hook for hooks in dictionaries for hook in hooks.values()]


def change_of(model: PeftModel, watched: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What one edit adds, ``[context x token, d]``, in float64, and what it reads."""
    watched.clear()
    logits(model)
    ((before, after),) = watched
    return (after.double() - before.double()).flatten(0, -2), before


def compare(family: str, model: PeftModel, made: list[full_sae.Edit]) -> None:
    """A model's logits are those of the full SAE's edits in the untouched network."""
    slow = network(family)
    with full_sae.installed(slow, made):
        assert relative(logits(model), logits(slow)) < EXACT
