"""Texts to train on, from JSON lines."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.contexts import start_text
from ..core.errors import InputError
from ..core.words import is_unicode

COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sft": (("text",), ("prompt", "completion")),
    "dpo": (("prompt", "chosen", "rejected"),),
}
"""Columns that an objective reads; for ``sft`` one of the two."""


@dataclass(frozen=True)
class Examples:
    """Texts of one kind."""

    rows: list[dict[str, str]]
    """Each with the same columns, those of :data:`COLUMNS` alone."""
    fingerprint: str
    """SHA-256 of the rows, as 16 hexadecimal digits."""

    def held_out(self, share: float, seed: int) -> tuple["Examples", "Examples"]:
        """A seeded random share of the rows (at least one) taken out: the rest, and those of them that
        are not in the rest as well.

        Raises:
            InputError: nothing would be left to train on.

        """
        n_out = max(1, round(share * len(self.rows)))
        if n_out >= len(self.rows):
            raise InputError(
                f"{len(self.rows)} examples leave none to train on where {n_out} are held out; "
                "expected at least 2; give more, or a file of others with --eval-data"
            )
        order = np.random.default_rng(seed).permutation(len(self.rows))
        chosen = set(order[:n_out].tolist())
        rest = [row for i, row in enumerate(self.rows) if i not in chosen]
        known = {tuple(row.values()) for row in rest}
        out = [self.rows[i] for i in sorted(chosen) if tuple(self.rows[i].values()) not in known]
        if not out:
            raise InputError(
                f"all {n_out} examples that are held out are among the others too; expected some that "
                "are not; remove repeated ones, or give a file of others with --eval-data"
            )
        return gather(rest), gather(out)

    def shared_with(self, other: "Examples") -> int:
        """How many rows are among another's."""
        known = {tuple(row.values()) for row in other.rows}
        return sum(tuple(row.values()) in known for row in self.rows)


def gather(rows: list[dict[str, str]]) -> Examples:
    """Rows with their fingerprint."""
    canonical = json.dumps(rows, sort_keys=True, ensure_ascii=True)
    return Examples(rows, hashlib.sha256(canonical.encode()).hexdigest()[:16])


def prepend_bos(rows: list[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """Put BOS (EOS where the tokenizer has none) in front of every text or prompt that does not begin
    with it, as contexts have it: TRL puts none there, and most models have never been without.
    """
    start = start_text(tokenizer)
    key = "text" if "text" in rows[0] else "prompt"
    return [row | {key: start + row[key].removeprefix(start)} for row in rows]


def read_examples(path: Path, objective: str) -> Examples:
    """Read a file of JSON lines: an object a line, with strings under an objective's columns.

    For ``sft``: ``text``, or ``prompt`` and ``completion`` (then the loss is of completions alone);
    for ``dpo``: ``prompt``, ``chosen``, ``rejected``. Other keys are left out.

    Raises:
        InputError: no such file, no JSON lines, a column that is missing, no text, or empty, or a
            pair of which both are the same.

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
        InputError: there is none, a column is missing, is no text, or is empty, or a pair of which
            both are the same.
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
    columns = _columns(name, next(iter(given.values())), objective)
    return gather([_row(where, row, columns, objective) for where, row in given.items()])


def _row(
    where: str, row: Mapping[str, object], columns: tuple[str, ...], objective: str
) -> dict[str, str]:
    texts: dict[str, str] = {}
    for column in columns:
        value = row.get(column)
        if not isinstance(value, str) or not value.strip() or not is_unicode(value):
            problem = "is missing" if column not in row else f"is {repr(value)[:60]}"
            raise InputError(
                f"{where}: {column!r} {problem}; expected text under {', '.join(columns)} in every "
                "line; correct it"
            )
        texts[column] = value
    if objective == "dpo" and texts["chosen"] == texts["rejected"]:
        raise InputError(
            f"{where}: chosen and rejected are the same, {repr(texts['chosen'])[:60]}; expected two, of "
            "which one is preferred; remove the line"
        )
    return texts


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
