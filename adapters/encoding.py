"""Examples as the tokens that a trainer takes: begun once, ended once, and cut."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

from torch import nn

from ..core.contexts import first_and_last, tokenised, without_start
from ..core.errors import InputError
from ..core.training import TrainingOptions
from .examples import ASSISTANT, Messages, Row
from .places import text_config

IGNORED = -100
"""The label of a token that is not learned."""
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Encoded:
    """Examples as tokens."""

    rows: list[dict[str, list[int]]]
    """``input_ids`` and ``labels``; of pairs ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``. Only
    those of which the longest length leaves something to learn."""
    n_cut: int
    """How many were longer."""
    n_tokens: int
    """Tokens before anything was cut; of pairs those of both."""
    n_tokens_lost: int
    """Of these, what was cut off or stands in examples that are left out."""


def usable_length(network: nn.Module, max_length: int) -> int:
    """The most tokens of an example that can be used: never more than the model takes."""
    longest = getattr(text_config(network), "max_position_embeddings", None)
    return min(max_length, longest or max_length)


def encode(
    rows: Sequence[Row], tokenizer: Any, options: TrainingOptions, max_length: int
) -> Encoded:
    """The tokens of examples.

    Each begins with BOS, exactly once (``options.bos``), and ends with EOS, exactly once; of the special
    tokens that the tokenizer itself would add there is none. Conversations are what the model's chat
    template makes of them, with one BOS in front where the tokenizer has BOS. A completion begins
    where the tokens of the prompt and those of both together part.

    Args:
        rows: examples of one kind (see :data:`adapters.examples.COLUMNS`).
        tokenizer: of Hugging Face.
        options: ``objective``, ``bos`` and ``completion_only``.
        max_length: what follows so many tokens is cut off.

    Raises:
        InputError: the tokenizer has no EOS, or no chat template for conversations, or one that refuses
            them.

    """
    frame = Frame(tokenizer, options.bos)
    if options.objective == "dpo":
        return _cut_pairs(list(_pairs(rows, frame)), max_length)
    return _cut_sequences(list(_sequences(rows, frame, options.completion_only)), max_length)


class Frame:
    """How one tokenizer's texts begin and end."""

    def __init__(self, tokenizer: Any, bos: bool) -> None:
        self.tokenizer, self.bos = tokenizer, bos
        self.start, self.end = first_and_last(tokenizer)

    def read(self, texts: Sequence[str | Messages], *, ends: bool = True) -> list[list[int]]:
        """Texts or conversations as tokens; texts with EOS behind, where ``ends``."""
        chats = bool(texts) and not isinstance(texts[0], str)
        plain = [text if isinstance(text, str) else self.render(text) for text in texts]
        return self._framed(plain, chats, ends and not chats)

    def _framed(self, texts: list[str], chats: bool, ends: bool) -> list[list[int]]:
        rows = tokenised(texts, self.tokenizer)
        return [self._frame(text, row, chats, ends) for text, row in zip(texts, rows, strict=True)]

    def _frame(self, text: str, row: list[int], chat: bool, ends: bool) -> list[int]:
        if self.bos and not (chat and self.tokenizer.bos_token_id is None):
            row = without_start(text, row, self.tokenizer)
            front = [self.start]
        else:
            front = []
        return [*front, *row, *([self.end] if ends and row[-1:] != [self.end] else [])]

    def render(self, messages: Messages, **how: Any) -> str:
        """A conversation as text.

        Raises:
            InputError: there is no chat template, or it refuses the conversation.

        """
        try:
            self.tokenizer.get_chat_template()
        except ValueError:
            raise InputError(
                "the model's tokenizer has no chat template, which examples of messages need; use an "
                "instruction-tuned model, or give text"
            ) from None
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **how))
        except TemplateError as error:
            raise InputError(
                f"the model's chat template refuses {repr(messages)[:60]}: {error}; expected "
                "conversations as the model takes them; correct or remove it"
            ) from None

    def openings(self, prompts: Sequence[str | Messages]) -> list[list[int]]:
        """Prompts up to where their completions begin."""
        chats = bool(prompts) and not isinstance(prompts[0], str)
        plain = [
            prompt if isinstance(prompt, str) else self.render(prompt, add_generation_prompt=True)
            for prompt in prompts
        ]
        return self._framed(plain, chats, ends=False)

    def answered(self, prompts: Sequence[str | Messages], wholes: list[list[int]]) -> list[int]:
        """At which token of each whole its completion begins: where it and the prompt's opening part.

        Raises:
            InputError: a conversation is written otherwise before the answer as well.

        """
        n_same = [
            _common(opening, ids)
            for opening, ids in zip(self.openings(prompts), wholes, strict=True)
        ]
        for prompt, n, ids in zip(prompts, n_same, wholes, strict=True):
            if isinstance(prompt, str):
                continue
            (asked,) = self.read([prompt])
            if min(n, _common(asked, ids)) < len(asked):
                raise InputError(
                    f"{repr(prompt)[:60]}: the model's chat template writes these messages otherwise "
                    "where others follow, so the answer's beginning cannot be told; give the examples "
                    "as text"
                )
        return n_same

    def assistant(self, messages: Messages, ids: list[int]) -> list[bool]:
        """Which tokens of a conversation are the assistant's: by the template's own marks where it has
        them, otherwise those between what stands before a turn and what stands after it.

        Raises:
            InputError: a turn cannot be told from the others.

        """
        marked = self._marked(messages, len(ids))
        if marked is not None:
            return marked
        learned = [False] * len(ids)
        for i, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            first = self.answered([messages[:i]], [ids])[0] if i else 0
            end = _common(self.read([messages[: i + 1]])[0], ids)
            if first >= end:
                raise InputError(
                    f"message {i + 1} of {repr(messages)[:60]}: the model's chat template writes this "
                    "turn otherwise where others follow, so what is the assistant's cannot be told; "
                    "give conversations with one such turn, or --no-completion-only"
                )
            learned[first:end] = [True] * (end - first)
        return learned

    def _marked(self, messages: Messages, n_tokens: int) -> list[bool] | None:
        """By the template's marks; None where it has none, or not one for every turn."""
        if not (self.tokenizer.is_fast and _GENERATION.search(self.tokenizer.get_chat_template())):
            return None
        marks = self.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )["assistant_masks"]
        # The library loses the marks that begin within no token, and those behind them.
        if _runs(marks) != _runs([message["role"] == ASSISTANT for message in messages]):
            return None
        # The same tokens but for a BOS in front, which no assistant says.
        learned = [bool(mark) for mark in marks][-n_tokens:]
        return [False] * (n_tokens - len(learned)) + learned


def _sequences(
    rows: Sequence[Row], frame: Frame, completion_only: bool
) -> Iterator[tuple[list[int], list[bool]]]:
    """Tokens, and which of them are learned."""
    column = next(iter(rows[0]))
    if "prompt" not in rows[0]:
        for row, ids in zip(rows, frame.read([row[column] for row in rows]), strict=True):
            said = row[column]
            if completion_only and not isinstance(said, str):
                yield ids, frame.assistant(said, ids)
            else:
                yield ids, [True] * len(ids)
        return
    prompts = [row["prompt"] for row in rows]
    wholes = frame.read([row["prompt"] + row["completion"] for row in rows])
    for skipped, ids in zip(frame.answered(prompts, wholes), wholes, strict=True):
        yield ids, [i >= skipped or not completion_only for i in range(len(ids))]


def _pairs(rows: Sequence[Row], frame: Frame) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Prompt, chosen and rejected."""
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        frame.read([row["prompt"] + row[kind] for row in rows]) for kind in ("chosen", "rejected")
    )
    starts = zip(frame.answered(prompts, chosen), frame.answered(prompts, rejected), strict=True)
    for n, one, other in zip(map(min, starts), chosen, rejected, strict=True):
        yield one[:n], one[n:], other[n:]


def _cut_sequences(sequences: list[tuple[list[int], list[bool]]], max_length: int) -> Encoded:
    rows = []
    for ids, learned in sequences:
        labels = [token if learns else IGNORED for token, learns in zip(ids, learned, strict=True)]
        row = {"input_ids": ids[:max_length], "labels": labels[:max_length]}
        # The first token is never predicted.
        if any(label != IGNORED for label in row["labels"][1:]):
            rows.append(row)
    n_tokens = sum(len(ids) for ids, _ in sequences)
    left = sum(len(row["input_ids"]) for row in rows)
    n_cut = sum(len(ids) > max_length for ids, _ in sequences)
    return Encoded(rows, n_cut, n_tokens, n_tokens - left)


def _cut_pairs(pairs: list[tuple[list[int], list[int], list[int]]], max_length: int) -> Encoded:
    def size(prompt: list[int], chosen: list[int], rejected: list[int]) -> int:
        return 2 * len(prompt) + len(chosen) + len(rejected)

    rows, left, n_cut = [], 0, 0
    for prompt, chosen, rejected in pairs:
        room = max_length - len(prompt)
        n_cut += max(len(chosen), len(rejected)) > room
        if room > 0:
            row = {
                "prompt_ids": prompt,
                "chosen_ids": chosen[:room],
                "rejected_ids": rejected[:room],
            }
            left += size(*row.values())
            rows.append(row)
    n_tokens = sum(size(*pair) for pair in pairs)
    return Encoded(rows, n_cut, n_tokens, n_tokens - left)


def _runs(marks: Sequence[int]) -> int:
    """How many stretches of ones there are."""
    return sum(bool(now) and not before for before, now in pairwise([0, *marks]))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def reference_texts(rows: Sequence[Row], tokenizer: Any) -> list[str]:
    """Examples as texts, conversations as the chat template has them."""
    frame = Frame(tokenizer, bos=False)
    texts = []
    for row in rows:
        whole = row["prompt"] + row["completion"] if "prompt" in row else next(iter(row.values()))
        texts.append(whole if isinstance(whole, str) else frame.render(whole))
    return texts
