"""The slow way of an adapter: the whole SAE encodes and decodes, its error is added again.

Nothing of cleansteer is used: SAELens' ``encode`` and ``decode``, plain hooks on Hugging Face's
modules, and each component's formula written once more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import families
import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]
Options = Mapping[str, float]


def _scale(z: Tensor, p: Parameters, options: Options) -> Tensor:
    return z * (1 + p["scale"])


def _bias(z: Tensor, p: Parameters, options: Options) -> Tensor:
    return z + p["bias"]


def _lerp(z: Tensor, p: Parameters, options: Options) -> Tensor:
    return (1 - p["weight"]) * z + p["weight"] * p["target"]


def _switch(z: Tensor, p: Parameters, options: Options) -> Tensor:
    above = (z - p["threshold"]) / options.get("temperature", 0.25)
    return z + p["push"] / (1 + torch.exp(-above))


def _mlp(z: Tensor, p: Parameters, options: Options) -> Tensor:
    hidden = torch.einsum("hf,...f->...h", p["inner"], z) + p["inner_bias"]
    return z + torch.einsum("fh,...h->...f", p["outer"], hidden.clamp(min=0)) + p["outer_bias"]


def _lowrank(z: Tensor, p: Parameters, options: Options) -> Tensor:
    return z + torch.einsum("fr,rg,...g->...f", p["up"], p["down"], z)


def _sparse(z: Tensor, p: Parameters, options: Options) -> Tensor:
    return z + torch.einsum("fg,...g->...f", p["matrix"], z)


FORMULAS: dict[str, Callable[[Tensor, Parameters, Options], Tensor]] = {
    "scale": _scale,
    "bias": _bias,
    "lerp": _lerp,
    "switch": _switch,
    "mlp": _mlp,
    "lowrank": _lowrank,
    "sparse": _sparse,
}


@dataclass
class Edit:
    """What one adapter does at one hook."""

    hook: str
    sae: Any
    features: Sequence[int]
    component: str
    parameters: Parameters
    options: Options = field(default_factory=dict)
    centred: bool = False

    def apply(self, values: Tensor) -> Tensor:
        """X' = decode(z') + (x - decode(z)), ``[*any, d]``."""
        read = values - values.mean(dim=-1, keepdim=True) if self.centred else values
        latents = self.sae.encode(read)
        # A decode uses up what its encode keeps of the input's norm: each has its own.
        error = values - self.sae.decode(latents)
        changed = self.sae.encode(read).clone()
        chosen = list(self.features)
        formula = FORMULAS[self.component]
        changed[..., chosen] = formula(changed[..., chosen], self.parameters, self.options)
        return self.sae.decode(changed) + error


@contextmanager
def installed(model: Any, edits: Sequence[Edit]) -> Iterator[None]:
    """Let every forward pass of a Hugging Face model make the edits, one after the other."""
    handles = [_install(model, edit) for edit in edits]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _install(model: Any, edit: Edit) -> Any:
    module, is_input = families.module_at(model, edit.hook, True)
    if is_input:
        return module.register_forward_pre_hook(
            lambda _, inputs: (edit.apply(inputs[0]), *inputs[1:])
        )
    return module.register_forward_hook(
        lambda _, inputs, output: (
            (edit.apply(output[0]), *output[1:])
            if isinstance(output, tuple)
            else edit.apply(output)
        )
    )
