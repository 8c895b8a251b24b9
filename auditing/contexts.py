"""Where in the data features are most active, before their edit and after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..adapters.layer import component_at, find_layer, part_at
from ..adapters.objective import ADAPTER
from ..adapters.slices import FIRES
from ..core.records.contexts import AuditedContext
from .streams import watched
from .subject import Subject
from .task import Task

SHOWN = 3
"""Contexts of a feature that are shown."""
_AROUND = 10  # tokens before and behind


@dataclass(frozen=True)
class Strongest:
    """Of one feature."""

    before: list[AuditedContext]
    after: list[AuditedContext]


@torch.no_grad()
def strongest_contexts(subject: Subject, task: Task, rows: pd.DataFrame) -> list[Strongest]:
    """The strongest contexts of some features, at most one of each example.

    Args:
        subject: the adapter.
        task: its texts.
        rows: features, with ``hook`` and ``position``, their index within the target.

    """
    found: dict[int, Strongest] = {}
    for hook, group in rows.groupby("hook", sort=False):
        positions = torch.tensor(group["position"].tolist())
        peaks = _peaks(subject, task, str(hook), positions)
        for at, column in zip(group.index, range(len(positions)), strict=True):
            before, after = ([peak[column] for peak in each] for each in peaks)
            found[at] = Strongest(*(_told(subject, task, each) for each in (before, after)))
    return [found[at] for at in rows.index]


Peak = tuple[float, int, int]
"""Activation, example, token."""


def _peaks(
    subject: Subject, task: Task, hook: str, positions: Tensor
) -> tuple[list[list[Peak]], list[list[Peak]]]:
    """Of every example the peak of each feature, before and after."""
    model: Any = subject.model
    layer, _ = find_layer(model, hook)
    component, part = component_at(model, hook, ADAPTER), part_at(model, hook, ADAPTER)
    found: tuple[list[list[Peak]], list[list[Peak]]] = ([], [])
    example = 0
    with watched(model, [hook], edited=False) as seen:
        for given, _ in task.passes(model):
            latents = part.encode(part.read(seen[hook])[0])
            edit = component(latents if component.reads else None).expand_as(latents)
            chosen = layer.tokens(ADAPTER)
            if chosen is not None:
                edit = edit * chosen[..., None].to(edit.device)
            mask = given["attention_mask"].bool()[..., None].to(latents.device)
            chosen_features = positions.to(latents.device)
            for values, peaks in zip((latents, latents + edit), found, strict=True):
                masked = values[..., chosen_features].masked_fill(~mask, float("-inf"))
                best, at = masked.max(dim=1)
                peaks += [
                    [(float(a), example + row, int(t)) for a, t in zip(*pair, strict=True)]
                    for row, pair in enumerate(zip(best.tolist(), at.tolist(), strict=True))
                ]
            example += len(mask)
    return found


def _told(subject: Subject, task: Task, peaks: Sequence[Peak]) -> list[AuditedContext]:
    best = sorted(peaks, key=lambda peak: -peak[0])[:SHOWN]
    return [
        told_context(subject.tokenizer, task.rows[example]["input_ids"], at, activation)
        for activation, example, at in best
        if activation > FIRES
    ]


def told_context(tokenizer: Any, ids: Sequence[int], at: int, activation: float) -> AuditedContext:
    """A token of a text, with the text around it."""
    ids = list(ids)
    return AuditedContext(
        before=tokenizer.decode(ids[max(0, at - _AROUND) : at]),
        token=tokenizer.decode(ids[at : at + 1]),
        after=tokenizer.decode(ids[at + 1 : at + 1 + _AROUND]),
        activation=activation,
    )
