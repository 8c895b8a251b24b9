"""What a model does to its logits behind the unembedding: measured, whatever its configuration says."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .errors import InputError

_LARGEST = 1e6
"""So far beyond any cap that only the cap is left."""
_SMALLEST = 1e-3
_CLOSE = 1e-4
_EXACT = 1e-6
_SCALE_ROUNDING = 1e-3


@dataclass(frozen=True)
class Head:
    """From the final norm's output y to the logits: s (u W + b), u = r y; where they are soft-capped at
    c, c tanh(s (u W + b) / c).
    """

    input_scale: float = 1.0
    """r: what the final norm's output is multiplied by before the unembedding."""
    scale: float = 1.0
    """s: what the unembedding's output is multiplied by (Granite: 1 / ``logits_scaling``; Cohere:
    ``logit_scale``)."""
    soft_cap: float | None = None
    """c (Gemma-2: ``final_logit_softcapping``), None for models without one."""

    def bend(self, outputs: Tensor) -> Tensor:
        """Logits from the unembedding's outputs."""
        logits = self.scale * outputs
        return logits if self.soft_cap is None else self.soft_cap * (logits / self.soft_cap).tanh()


@torch.no_grad()
def measure_head(network: Any, probe: Tensor) -> Head:
    """Measure s and c of a Hugging Face model: the unembedding's output is exchanged for chosen
    numbers, and what comes out as logits is read.

    Args:
        network: the model; left as it was.
        probe: token ids, ``[context, token]``.

    Raises:
        InputError: the model has no unembedding, or its logits are another function of its output
            than a multiple, soft-capped or not.

    """
    unembedding = network.get_output_embeddings()
    if not isinstance(unembedding, nn.Module):
        raise InputError(
            f"a {type(network).__name__} has no output embedding; expected a causal language model; use "
            "one"
        )
    chosen = _numbers(int(network(probe, use_cache=False).logits.shape[-1]), probe.device)

    def exchange(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return chosen.expand_as(output).clone() if output.shape[-1] == len(chosen) else output

    handle = unembedding.register_forward_hook(exchange)
    try:
        found = cast(Tensor, network(probe, use_cache=False).logits)[:, -1].float()
    finally:
        handle.remove()
    small = (chosen.abs() <= _SMALLEST) & (chosen != 0)
    scale = float((found[0, small] / chosen[small]).median())
    largest = float(found[0].abs().max())
    capped = largest < abs(scale) * _LARGEST / 2
    head = Head(scale=_rounded(scale), soft_cap=_rounded(largest) if capped else None)
    expected = head.bend(chosen).expand_as(found)
    difference = (found - expected).abs() / expected.abs().clamp_min(1e-6)
    if not scale or not bool((difference < _CLOSE).all()):
        raise InputError(
            f"a {type(network).__name__} makes its logits of the unembedding's output in a way that is "
            "not known; expected a multiple of it, soft-capped or not; use another model"
        )
    return head


@torch.no_grad()
def measure_input_scale(bridge: Any, probe: Tensor, name: str, tolerance: float) -> float:
    """What the final norm's output is multiplied by before the unembedding (r).

    Args:
        bridge: TransformerLens' bridge over the model.
        probe: token ids, ``[context, token]``.
        name: what messages call the model.
        tolerance: largest difference, relative to the largest entry, that rounding explains.

    Raises:
        InputError: something else than a multiple of the final norm's output enters it.

    """
    if not hasattr(bridge, "ln_final"):
        raise InputError(
            f"model {name!r} has no norm between its last layer and its logits; expected one; use "
            "another model"
        )
    last, entering = f"blocks.{bridge.cfg.n_layers - 1}.hook_resid_post", "unembed.hook_in"
    _, cache = bridge.run_with_cache(probe, names_filter=[last, entering])
    unseen = [hook for hook in (last, entering) if hook not in cache]
    if unseen:
        raise InputError(
            f"model {name!r}: TransformerLens' bridge does not show what stands at {unseen[0]}; use "
            "another model"
        )
    normed = bridge.ln_final(cache[last]).flatten().double()
    entered = cache[entering].flatten().double()
    scale = float(entered @ normed / (normed @ normed)) if len(entered) == len(normed) else 0.0
    scale = 1.0 if abs(scale - 1) < _SCALE_ROUNDING else scale
    if not (entered - scale * normed).abs().max() < tolerance * entered.abs().max():
        raise InputError(
            f"model {name!r}: what enters its unembedding is not what its final norm gives; expected "
            "that or a multiple of it; use another model"
        )
    return scale


def _numbers(count: int, device: torch.device) -> Tensor:
    """Numbers of both signs from very small to very large, in no order."""
    sizes = torch.logspace(-4, 6, max(count // 2, 1), dtype=torch.float64)
    both = torch.cat([sizes, -sizes, sizes.new_zeros(count)])[:count]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return both[order].float().to(device)


def _rounded(value: float) -> float:
    """The nearby number of few digits that was meant, where there is one."""
    short = float(f"{value:.4g}")
    return short if abs(short - value) <= _EXACT * abs(value) else value
