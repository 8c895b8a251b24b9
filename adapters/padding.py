"""Texts as batches of tokens, padded behind."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from .encoding import IGNORED

Row = Mapping[str, Sequence[int]]
"""A text: ``input_ids``, and ``labels``, of which -100 are not predicted."""
_TOKENS_A_PASS = 1024


def plain_row(ids: Sequence[int]) -> Row:
    """A text all of whose tokens are predicted."""
    return {"input_ids": ids, "labels": ids}


def batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Texts in their order, as many as fill a pass."""
    batch: list[Row] = []
    for row in rows:
        longest = max(len(each["input_ids"]) for each in (*batch, row))
        if batch and longest * (len(batch) + 1) > _TOKENS_A_PASS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(batch: Sequence[Row], device: torch.device) -> dict[str, Tensor]:
    """Arguments of a model: ``input_ids``, ``labels`` and ``attention_mask``."""
    longest = max(len(row["input_ids"]) for row in batch)

    def filled(values: Sequence[int], filler: int) -> list[int]:
        return [*values, *[filler] * (longest - len(values))]

    parts = {
        "input_ids": [filled(row["input_ids"], 0) for row in batch],
        "labels": [filled(row["labels"], IGNORED) for row in batch],
        "attention_mask": [filled([1] * len(row["input_ids"]), 0) for row in batch],
    }
    return {name: torch.tensor(part, device=device) for name, part in parts.items()}
