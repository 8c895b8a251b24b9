"""Texts and conversations to train on, from JSON lines or rows in memory."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..core.errors import InputError
from ..core.words import is_unicode

COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sft": (("text",), ("prompt", "completion"), ("messages",)),
    "dpo": (("prompt", "chosen", "rejected"),),
}
"""Columns that an objective reads; for ``sft`` one of the three."""
Messages: TypeAlias = list[dict[str, str]]
"""A conversation, or a part of one: a ``role`` and a ``content`` each."""
Row: TypeAlias = Mapping[str, Any]
"""By columns, text or messages: ``messages`` are such, ``text`` is text, of the others all are one or
the other."""
ASSISTANT = "assistant"
"""The role whose messages are learned."""
_PARTS = ("role", "content")


@dataclass(frozen=True)
class Examples:
    """Examples of one kind."""

    rows: Sequence[Row]
    """Each with the same columns, those of :data:`COLUMNS` alone."""
    fingerprint: str
    """SHA-256 of the rows, as 16 hexadecimal digits."""

    @property
    def chat(self) -> bool:
        """True where they are conversations."""
        return not isinstance(next(iter(self.rows[0].values())), str)

    @property
    def n_prompts(self) -> int:
        """How many prompts there are (see :func:`prompt_of`)."""
        return len(set(map(prompt_of, self.rows)))

    def held_out(self, share: float, seed: int) -> tuple["Examples", "Examples"]:
        """A seeded random share of the rows (at least one) taken out, all rows of a prompt together: the
        rest, and those.

        Prompts are taken in a random order, each that fits into the share with all its rows; where
        none does, the one with the fewest.

        Raises:
            InputError: nothing would be left to train on.

        """
        n_out = max(1, round(share * len(self.rows)))
        by_prompt: dict[Hashable, list[int]] = {}
        for i, row in enumerate(self.rows):
            by_prompt.setdefault(prompt_of(row), []).append(i)
        if n_out >= len(self.rows) or len(by_prompt) < 2:
            raise InputError(
                f"{len(self.rows)} examples leave none to train on where {n_out} are held out with all "
                f"that share a prompt; expected at least 2 prompts, found {len(by_prompt)}; give more, "
                "or a file of others with --eval-data"
            )
        groups: list[list[int]] = list(by_prompt.values())
        order = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
        chosen: set[int] = set()
        for group in order:
            if len(chosen) + len(group) <= n_out:
                chosen.update(group)
        out = chosen or set(sorted(order, key=len)[0])
        return (
            gather([row for i, row in enumerate(self.rows) if i not in out]),
            gather([self.rows[i] for i in sorted(out)]),
        )

    def shared_with(self, other: "Examples") -> int:
        """How many rows are among another's, blanks around a text aside."""
        known = set(map(_stripped_row, other.rows))
        return sum(_stripped_row(row) in known for row in self.rows)

    def prompts_shared_with(self, other: "Examples") -> int:
        """How many rows have a prompt that is among another's."""
        known = set(map(prompt_of, other.rows))
        return sum(prompt_of(row) in known for row in self.rows)


def prompt_of(row: Row) -> Hashable:
    """What a row's completion follows, blanks around it aside: the prompt; of a conversation all before
    the assistant's first turn; of a text the whole.
    """
    if "messages" in row:
        roles = [message["role"] for message in row["messages"]]
        first = roles.index(ASSISTANT) if ASSISTANT in roles else len(roles)
        return _stripped(row["messages"][:first])
    return _stripped(row["prompt"] if "prompt" in row else row["text"])


def _stripped(value: str | Messages) -> Hashable:
    if isinstance(value, str):
        return value.strip()
    return tuple((message["role"], message["content"].strip()) for message in value)


def _stripped_row(row: Row) -> Hashable:
    return tuple(_stripped(row[column]) for column in sorted(row))


def gather(rows: Sequence[Row]) -> Examples:
    """Rows with their fingerprint."""
    canonical = json.dumps(list(rows), sort_keys=True, ensure_ascii=True)
    return Examples(rows, hashlib.sha256(canonical.encode()).hexdigest()[:16])


def read_examples(path: Path, objective: str) -> Examples:
    """Read a file of JSON lines: an object a line, with text or messages under an objective's columns.

    For ``sft``: ``text``, or ``prompt`` and ``completion``, or ``messages``; for ``dpo``: ``prompt``,
    ``chosen``, ``rejected``. Messages are a list of ``{"role": ..., "content": ...}``; all columns but
    ``text`` may hold them. Other keys of a line are left out.

    Raises:
        InputError: no such file, no JSON lines, a column that is missing, neither text nor messages,
            or empty, or a pair of which both are the same.

    """
    try:
        # Not splitlines(): JSON's strings may hold other line breaks, such as U+2028, as they are.
        lines = path.read_text("utf-8-sig").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"data {path} does not exist; give a file of JSON lines") from None
    except IsADirectoryError:
        raise InputError(f"data {path} is a directory; expected a file of JSON lines") from None
    except UnicodeDecodeError as error:
        raise InputError(f"data {path} is no UTF-8 text ({error}); write it anew") from None
    read = {
        f"data {path}, line {i}": _object(path, i, line)
        for i, line in enumerate(lines, 1)
        if line.strip()
    }
    if not read:
        raise InputError(f"data {path} holds no example; expected a JSON object a line; fill it")
    return _checked(read, f"data {path}", objective)


def take_examples(rows: Iterable[object], name: str, objective: str) -> Examples:
    """Take rows in memory as a file's lines are (see :func:`read_examples`); ``name`` is the
    argument's.

    Raises:
        InputError: there is none, a column is missing, neither text nor messages, or empty, or a pair
            of which both are the same.
        TypeError: a row is no dictionary.

    """
    given: dict[str, Mapping[str, object]] = {}
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"{name}[{i}] is {row!r:.60}; expected a dictionary of columns")
        given[f"{name}[{i}]"] = row
    if not given:
        raise InputError(f"{name} holds no example; expected a dictionary a row; give some")
    return _checked(given, name, objective)


def _checked(given: Mapping[str, Mapping[str, object]], name: str, objective: str) -> Examples:
    """The rows by where they stand, with an objective's columns alone."""
    first = next(iter(given.values()))
    columns = _columns(name, first, objective)
    chats = columns == ("messages",) or (columns != ("text",) and isinstance(first["prompt"], list))
    return gather([_row(where, row, columns, chats) for where, row in given.items()])


def _row(
    where: str, row: Mapping[str, object], columns: tuple[str, ...], chats: bool
) -> dict[str, str | Messages]:
    read: dict[str, str | Messages] = {}
    for column in columns:
        value = row.get(column)
        if chats:
            read[column] = _messages(f"{where}: {column!r}", value)
        elif isinstance(value, str) and value.strip() and is_unicode(value):
            read[column] = value
        else:
            problem = "is missing" if column not in row else f"is {repr(value)[:60]}"
            raise InputError(
                f"{where}: {column!r} {problem}; expected text under {', '.join(columns)} in every "
                "line; correct it"
            )
    if "chosen" in read and read["chosen"] == read["rejected"]:
        raise InputError(
            f"{where}: chosen and rejected are the same, {repr(read['chosen'])[:60]}; expected two, of "
            "which one is preferred; remove the line"
        )
    return read


def _messages(where: str, value: object) -> Messages:
    """A list of messages, with role and content alone."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise InputError(
            f"{where} is {repr(value)[:60]}; expected a list of messages, as in every line; correct it"
        )
    return [_message(f"{where}, message {i}", message) for i, message in enumerate(value, 1)]


def _message(where: str, value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        # Tables fill up with nulls what only some messages have.
        given = {key: part for key, part in value.items() if part is not None}
        texts = {key: str(part) for key, part in given.items() if isinstance(part, str)}
        if set(given) == set(texts) == set(_PARTS) and all(map(is_unicode, texts.values())):
            return {part: texts[part] for part in _PARTS}
    raise InputError(
        f"{where} is {repr(value)[:60]}; expected {{'role': ..., 'content': ...}}, both text, and "
        "nothing else; correct it"
    )


def _object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise InputError(
            f"data {path}, line {number}: {line[:40]!r} is no JSON object; expected one a line; "
            "correct it"
        )
    return row


def _columns(name: str, first: Mapping[str, object], objective: str) -> tuple[str, ...]:
    for columns in COLUMNS[objective]:
        if set(columns) <= set(first):
            return columns
    expected = " or ".join(", ".join(columns) for columns in COLUMNS[objective])
    raise InputError(
        f"{name} has {', '.join(map(repr, first)) or 'no column'}; --objective {objective} expects "
        f"{expected}; rename the columns"
    )
