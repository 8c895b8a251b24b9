"""Contexts: token sequences of equal length, the model read at their final token."""

import random
from collections.abc import Sequence
from itertools import chain

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
) -> Int[Tensor, "context token"]:
    """The contexts of a corpus' distinct texts, as docs/protocol.md, Contexts, defines them.

    ``stream``: the distinct texts are shuffled (seeded), tokenised without special tokens, joined
    with EOS and cut into bodies of ``context_length - 1`` tokens, with BOS (EOS where the tokenizer
    has none) in front. ``text-start``: the first ``context_length`` tokens, BOS included, of every
    text that has that many. None ends in padding.

    Raises:
        InputError: the corpus gives fewer contexts than the setting asks for.

    """
    start, end = first_and_last(tokenizer)
    body = corpus.context_length - 1
    bodies: list[list[int]] = []
    if corpus.contexts == "stream":
        shuffled = list(texts)
        random.Random(seed).shuffle(shuffled)
        buffer: list[int] = []
        for row in _tokenised(shuffled, tokenizer):
            buffer.extend(row)
            buffer.append(end)
            while len(buffer) >= body and len(bodies) < corpus.n_contexts:
                bodies.append(buffer[:body])
                del buffer[:body]
            if len(bodies) == corpus.n_contexts:
                break
    else:
        for row in _tokenised(texts, tokenizer):
            if len(row) >= body:
                bodies.append(row[:body])
                if len(bodies) == corpus.n_contexts:
                    break
    if len(bodies) < corpus.n_contexts:
        raise InputError(
            f"the corpus gives {len(bodies)} contexts of {corpus.context_length} tokens "
            f"({len(texts)} texts), expected n_contexts = {corpus.n_contexts}; give more text or "
            "lower `n_contexts` or `context_length`"
        )
    return torch.tensor([[start, *row] for row in bodies], dtype=torch.long)


def prompt_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, "1 token"]:
    """One text as a context: BOS (EOS where the tokenizer has none) and its tokens."""
    start, _ = first_and_last(tokenizer)
    (row,) = _tokenised([text], tokenizer)
    return torch.tensor([[start, *row]], dtype=torch.long)


def start_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """BOS (EOS where the tokenizer has none) as text, to be put in front of texts that others turn
    into tokens; empty where the tokenizer puts it there itself.

    Raises:
        InputError: the tokenizer has neither, or does not read it as one token.

    """
    start, _ = first_and_last(tokenizer)
    (bare,) = _tokenised(["a"], tokenizer)
    if tokenizer("a")["input_ids"][: len(bare) + 1] == [start, *bare]:
        return ""
    text = str(tokenizer.convert_ids_to_tokens(start))
    (found,) = _tokenised([text + "a"], tokenizer)
    if found[0] != start:
        raise InputError(
            f"the tokenizer reads its own first token {text!r} as {found[0]}, expected {start}; use one "
            "that does not split special tokens"
        )
    return text


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


def _tokenised(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> "chain[list[int]]":
    broken = next((text for text in texts if not is_unicode(text)), None)
    if broken is not None:
        raise InputError(
            f"text {broken[:40]!r} holds half of a character; expected Unicode text; correct it"
        )
    batches = (
        tokenizer(list(texts[i : i + _TOKENIZER_BATCH]), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        for i in range(0, len(texts), _TOKENIZER_BATCH)
    )
    return chain.from_iterable(batches)
