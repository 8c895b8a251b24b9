"""Where in the data features are most active, before their edit and after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..adapters.layer import component_at, find_layer, part_at
from ..adapters.objective import ADAPTER
from ..adapters.places import find_place
from ..adapters.slices import FIRES
from ..adapters.taps import tap
from ..core.records.audit import AuditedContext
from .subject import Subject
from .task import Task

_CONTEXTS = 3
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
    place = find_place(model.get_base_model(), hook)
    seen: list[Tensor] = []

    def see(values: Tensor) -> None:
        seen.append(values * place.factor)

    handle = tap(place.module_in(layer.base_layer), place.at_input, see, first=True)
    found: tuple[list[list[Peak]], list[list[Peak]]] = ([], [])
    example = 0
    try:
        for given, _ in task.passes(model):
            latents = part.encode(part.read(seen.pop())[0])
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
    finally:
        handle.remove()
    return found


def _told(subject: Subject, task: Task, peaks: Sequence[Peak]) -> list[AuditedContext]:
    best = sorted(peaks, key=lambda peak: -peak[0])[:_CONTEXTS]
    return [_context(subject, task, peak) for peak in best if peak[0] > FIRES]


def _context(subject: Subject, task: Task, peak: Peak) -> AuditedContext:
    activation, example, at = peak
    ids = list(task.rows[example]["input_ids"])
    decode = subject.tokenizer.decode
    return AuditedContext(
        before=decode(ids[max(0, at - _AROUND) : at]),
        token=decode(ids[at : at + 1]),
        after=decode(ids[at + 1 : at + 1 + _AROUND]),
        activation=activation,
    )
