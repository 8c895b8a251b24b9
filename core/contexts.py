"""Contexts: token sequences of equal length, the model read at their final token."""

import random
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .errors import InputError
from .settings import CorpusSetting
from .words import is_unicode

_TOKENIZER_BATCH = 256


def build_contexts(
    texts: Sequence[str],
    corpus: CorpusSetting,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    more: int = 0,
) -> Int[Tensor, "context token"]:
    """The contexts of a corpus' distinct texts, as docs/protocol.md, Contexts, defines them, and
    ``more`` that follow them.

    ``stream``: the distinct texts are shuffled (seeded), tokenised without special tokens, joined
    with EOS and cut into bodies of ``context_length - 1`` tokens, with BOS (EOS where the tokenizer
    has none) in front. ``text-start``: the first ``context_length`` tokens, BOS included, of every
    text that has that many. A BOS that a text itself begins with is left out. None ends in padding.

    Raises:
        InputError: the corpus gives fewer contexts than the setting asks for.

    """
    start, end = first_and_last(tokenizer)
    body = corpus.context_length - 1
    wanted = corpus.n_contexts + more
    bodies: list[list[int]] = []
    if corpus.contexts == "stream":
        shuffled = list(texts)
        random.Random(seed).shuffle(shuffled)
        buffer: list[int] = []
        for row in _bodies(shuffled, tokenizer):
            buffer.extend(row)
            buffer.append(end)
            while len(buffer) >= body and len(bodies) < wanted:
                bodies.append(buffer[:body])
                del buffer[:body]
            if len(bodies) == wanted:
                break
    else:
        for row in _bodies(texts, tokenizer):
            if len(row) >= body:
                bodies.append(row[:body])
                if len(bodies) == wanted:
                    break
    if len(bodies) < wanted:
        behind = f" and response_contexts = {more} behind them" if more else ""
        lower = "`n_contexts`, `response_contexts`" if more else "`n_contexts`"
        raise InputError(
            f"the corpus gives {len(bodies)} contexts of {corpus.context_length} tokens "
            f"({len(texts)} texts), expected n_contexts = {corpus.n_contexts}{behind}; give more text or "
            f"lower {lower} or `context_length`"
        )
    return torch.tensor([[start, *row] for row in bodies], dtype=torch.long)


def prompt_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, "1 token"]:
    """One text as a context: BOS (EOS where the tokenizer has none) and its tokens."""
    start, _ = first_and_last(tokenizer)
    (row,) = _bodies([text], tokenizer)
    return torch.tensor([[start, *row]], dtype=torch.long)


def first_and_last(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """BOS (EOS where the tokenizer has none) and EOS.

    Raises:
        InputError: the tokenizer has neither.

    """
    end = tokenizer.eos_token_id
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    if start is None or end is None:
        raise InputError(
            "the tokenizer has neither BOS nor EOS token, expected EOS at least; use a model whose "
            "tokenizer defines one"
        )
    return int(start), int(end)


def tokenised(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """The tokens of each text, with no special token but those that are written in it.

    Raises:
        InputError: a text holds half of a character.

    """
    broken = next((text for text in texts if not is_unicode(text)), None)
    if broken is not None:
        raise InputError(
            f"text {broken[:40]!r} holds half of a character; expected Unicode text; correct it"
        )
    for i in range(0, len(texts), _TOKENIZER_BATCH):
        batch = list(texts[i : i + _TOKENIZER_BATCH])
        yield from tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]


def without_start(text: str, row: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A text's tokens without the BOS (EOS where the tokenizer has none) that is written at its
    beginning, however often. An unknown word that reads as the same token stays.
    """
    start, _ = first_and_last(tokenizer)
    mark = str(tokenizer.convert_ids_to_tokens(start))
    rest = text.lstrip()
    while rest.startswith(mark) and row[:1] == [start]:
        row, rest = row[1:], rest.removeprefix(mark).lstrip()
    return row


def _bodies(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    rows = zip(texts, tokenised(texts, tokenizer), strict=True)
    return (without_start(text, row, tokenizer) for text, row in rows)
