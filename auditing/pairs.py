"""Which features act on which others, in components that join them."""

from typing import Any

import torch
from torch import Tensor

from ..adapters.components.component import Component
from ..adapters.layer import component_at
from ..adapters.objective import ADAPTER
from ..core.records.audit import AuditedPair
from .gates import gated
from .subject import Subject
from .task import Task

PAIRS = 20
_TOKENS = 2000


def joins(component: Component) -> bool:
    """Whether an edit may depend on another feature's activation."""
    return component.reads and not all(value.ndim == 1 for value in component.parameters())


@torch.no_grad()
def strongest_pairs(subject: Subject, task: Task, count: int = PAIRS) -> list[AuditedPair]:
    """The pairs of different features with the largest effect: the weight, mean over tokens of
    d(z'_target - z_target) / dz_source, times the source's mean activation; of components that join none,
    nothing.

    Args:
        subject: the adapter.
        task: texts; the mean is taken over their tokens, every n-th so that they are 2,000 at most.
        count: how many.

    """
    pairs = []
    for target in subject.targets:
        component = component_at(subject.model, target.hook, ADAPTER)
        if not joins(component):
            continue
        latents = _latents(subject, task, target.hook)
        weights = mean_jacobian(component, latents)
        effects = weights * latents.mean(dim=0)
        effects.fill_diagonal_(0.0)
        features = target.features or list(range(len(weights)))
        largest = effects.abs().flatten().topk(min(count, effects.numel())).indices.tolist()
        for at in largest:
            to, source = divmod(at, len(weights))
            if effects[to, source] != 0:
                pairs.append(
                    AuditedPair(
                        hook=target.hook,
                        source=features[source],
                        target=features[to],
                        weight=float(weights[to, source]),
                        effect=float(effects[to, source]),
                    )
                )
    return sorted(pairs, key=lambda pair: -abs(pair.effect))[:count]


def mean_jacobian(component: Any, latents: Tensor) -> Tensor:
    """Mean over tokens of d(z' - z) / dz, ``[target, source]``."""
    from torch.func import jacrev, vmap

    width = latents.shape[1]
    total = torch.zeros(width, width, device=latents.device)
    at_once = max(1, (1 << 24) // max(1, width * width))
    derivative = vmap(jacrev(component.forward))
    for part in latents.split(at_once):
        total += derivative(part).sum(dim=0)
    return total / len(latents)


def _latents(subject: Subject, task: Task, hook: str) -> Tensor:
    """Activations at tokens of the data, evenly spread."""
    kept: list[Tensor] = []
    every = -(-sum(len(row["input_ids"]) for row in task.rows) // _TOKENS)
    skipped = 0
    with gated(subject.model, [hook]) as gates:
        for given, _ in task.passes(subject.model):
            latents = gates[hook].latents
            assert latents is not None
            there = latents[given["attention_mask"].bool().to(latents.device)]
            kept.append(there[skipped::every])
            skipped = (skipped - len(there)) % every
    return torch.cat(kept).float()
