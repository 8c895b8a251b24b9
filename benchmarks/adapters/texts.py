"""Texts of a topic, and of everything else."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ...adapters.encoding import IGNORED, Frame
from ...adapters.padding import Row, plain_row
from ...core.docstrings import Split
from ...core.errors import InputError
from ...miniatures.text import TRAINED_PACKAGES, gather
from .design import Design

_PROMPT, _COMPLETION = 12, 24
"""Tokens of a preference's prompt and answers."""
_AT_ONCE = 64
_REFERENCE = 3072
"""Tokens that Fisher's information is measured on."""


@dataclass(frozen=True)
class Texts:
    """Of a topic and a seed, as tokens; each begins with BOS."""

    written: list[str]
    """What is trained on, as text."""
    train: list[list[int]]
    held_out: list[list[int]]
    reference: list[list[int]]
    """Of other packages: what the rule of relevance sees."""
    other: list[list[int]]
    """Of other packages again, which nothing is fitted to: what the cost is measured on."""


@dataclass(frozen=True)
class Pair:
    """A prompt with the answer that is preferred and another."""

    chosen: Row
    rejected: Row
    prompt: list[int]

    def text(self, tokenizer: Any) -> dict[str, str]:
        """As an example to train on."""
        start = tokenizer.all_special_ids
        parts = {"prompt": self.prompt}
        for name in ("chosen", "rejected"):
            parts[name] = list(getattr(self, name)["input_ids"])[len(self.prompt) :]
        return {
            name: tokenizer.decode([i for i in ids if i not in start])
            for name, ids in parts.items()
        }


def read_texts(topic: str, seed: int, tokenizer: Any, design: Design) -> Texts:
    """Docstrings of a package, and of those that the miniatures were trained on.

    Raises:
        InputError: the package is not installed, or has too few.

    """
    written, kept = (_docstrings((topic,), split) for split in ("train", "validation"))
    if len(written) < design.batch_size or not kept:
        raise InputError(
            f"topic {topic!r} has {len(written)} texts to train on and {len(kept)} to score, expected "
            f"{design.batch_size} and 1 at least; choose a package with more docstrings"
        )
    order = np.random.default_rng(seed).permutation(len(written))[: design.examples]
    written = [written[i] for i in order]
    others = _shuffled(_docstrings(TRAINED_PACKAGES, "validation"))
    frame = Frame(tokenizer, True)

    def tokens(texts: list[str]) -> list[list[int]]:
        return [row[: design.max_length] for row in frame.read(texts, ends=False)]

    rows = tokens(others)
    return Texts(
        written,
        tokens(written),
        upto(tokens(_shuffled(kept)), design.scored),
        upto(rows[::2], _REFERENCE),
        upto(rows[1::2], design.scored),
    )


@cache
def _docstrings(packages: tuple[str, ...], split: Split) -> list[str]:
    return gather(packages, split, 0)


def _shuffled(texts: list[str]) -> list[str]:
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


def upto(rows: list[list[int]], n_tokens: int) -> list[list[int]]:
    """The first rows, with no more begun after so many tokens."""
    some, count = [], 0
    for row in rows:
        if count >= n_tokens:
            break
        some.append(row)
        count += len(row)
    return some


@torch.no_grad()
def pairs_of(rows: list[list[int]], network: Any, seed: int) -> list[Pair]:
    """Preferences: after the first 12 tokens of a text what follows there is preferred to what the model
    itself writes on, drawn at temperature 1 (Z. Chen et al., "Self-Play Fine-Tuning Converts Weak
    Language Models to Strong Language Models", arXiv:2401.01335, section 3).
    """
    long = [row for row in rows if len(row) >= _PROMPT + _COMPLETION]
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for start in range(0, len(long), _AT_ONCE):
        some = long[start : start + _AT_ONCE]
        written = torch.tensor([row[:_PROMPT] for row in some], device=device)
        for _ in range(_COMPLETION):
            logits = network(written, use_cache=False).logits[:, -1].float().cpu()
            drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
            written = torch.cat([written, drawn.to(device)], dim=1)
        for row, own in zip(some, written.tolist(), strict=True):
            answers = (row[: _PROMPT + _COMPLETION], own)
            if answers[0] != answers[1]:
                chosen, rejected = map(_answer, answers)
                pairs.append(Pair(chosen, rejected, row[:_PROMPT]))
    return pairs


def _answer(ids: list[int]) -> Row:
    return {"input_ids": ids, "labels": [IGNORED] * _PROMPT + ids[_PROMPT:]}


def plain(rows: list[list[int]]) -> list[Row]:
    """Texts all of whose tokens are predicted."""
    return [plain_row(row) for row in rows]
