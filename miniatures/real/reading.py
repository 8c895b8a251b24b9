"""What the SAEs of a real model read: texts, docstrings, and conversations with the model itself."""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...core.contexts import first_and_last
from ...core.errors import InputError
from ..text import TRAINED_PACKAGES, gather

DOCUMENT_CHARS = 1500
"""Consecutive lines of a file are joined to documents of about this length."""
HELD_BACK = 4
"""Percent of the documents that no SAE is trained on, by a hash of their text."""
_UNKNOWN = "<unk>"

_SENTENCES = re.compile(r"(?<=[.!?]) +(?=[A-Z\"'(])")
_SPACED = (
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r" ([.,;:!?%)\]}])(?= |$)"), r"\1"),
    (re.compile(r"(?<=[\s\"'])([(\[{$£€]) (?=\S)"), r"\1"),
    (re.compile(r" ('(?:s|re|ve|ll|d|m|t))\b"), r"\1"),
    (re.compile(r" n't\b"), "n't"),
    (re.compile(r"(\d) (?=st\b|nd\b|rd\b|th\b)"), r"\1"),
    (re.compile(r"\" ([^\"]*?) \""), r'"\1"'),
    (re.compile(r"(?<=[^\s]) ' (?=\s|$)|(?<=s) '(?= )"), "'"),
)


def restore(line: str) -> str:
    """A line of WikiText as it was written: sentences with unknown words left out, `` @-@ `` joined,
    no spaces before punctuation, headings without their equals signs. Other text stays as it is.
    """
    if _UNKNOWN in line:
        line = " ".join(part for part in _SENTENCES.split(line) if _UNKNOWN not in part)
    heading = re.fullmatch(r"(?:= )+(.*?)(?: =)+", line.strip())
    if heading:
        line = heading[1]
    if " , " in line or " . " in line or line.endswith(" .") or " @" in line:
        for pattern, instead in _SPACED:
            line = pattern.sub(instead, line)
    return " ".join(line.split())


def documents(path: Path) -> Iterator[str]:
    """A text file, a paragraph a line, as documents of about ``DOCUMENT_CHARS``.

    Raises:
        InputError: there is no such file, or it is not UTF-8.

    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"text file {path} cannot be read ({error}); expected UTF-8 text, a paragraph a line"
        ) from None
    kept: list[str] = []
    for line in filter(None, map(restore, lines)):
        kept.append(line)
        if sum(map(len, kept)) >= DOCUMENT_CHARS:
            yield "\n".join(kept)
            kept = []
    if kept:
        yield "\n".join(kept)


def is_held_back(text: str) -> bool:
    """Whether a document is kept from training, for the figures."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_BACK


def collect(
    files: Sequence[Path], talks: Sequence[str], seed: int, wanted: int, tokenizer: Any
) -> tuple[list[str], dict[str, int]]:
    """Documents of about ``wanted`` tokens and a tenth more in a seeded order, and how many characters
    each source gave: the files and conversations whole, then docstrings of ``TRAINED_PACKAGES``.
    """
    sources = {path.name: list(documents(path)) for path in files} | {"conversations": list(talks)}
    given = [text for texts in sources.values() for text in texts]
    missing = int(1.1 * wanted) - len(stream(given, tokenizer, 2 * wanted))
    sources["docstrings"] = docstrings = []
    if missing > 0:
        texts = gather(TRAINED_PACKAGES, "train", seed)
        for start in range(0, len(texts), 1000):
            batch = texts[start : start + 1000]
            docstrings += batch
            missing -= len(stream(batch, tokenizer, missing))
            if missing <= 0:
                break
    found = list(dict.fromkeys(text for texts in sources.values() for text in texts))
    random.Random(seed).shuffle(found)
    return found, {name: sum(map(len, texts)) for name, texts in sources.items()}


def stream(texts: Sequence[str], tokenizer: Any, wanted: int) -> list[int]:
    """Token ids of documents, two line ends between them, until there are as many as wanted."""
    between = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    ids: list[int] = []
    for start in range(0, len(texts), 1000):
        batch = list(texts[start : start + 1000])
        for row in tokenizer(batch, add_special_tokens=False)["input_ids"]:
            ids += row
            ids += between
        if len(ids) >= wanted:
            break
    return ids[:wanted]


def windows(ids: Sequence[int], tokenizer: Any, length: int) -> Any:
    """``[window, length]``: BOS and ``length - 1`` tokens that follow each other; the rest is left."""
    import torch

    bos, _ = first_and_last(tokenizer)
    whole = len(ids) // (length - 1) * (length - 1)
    rows = torch.tensor(ids[:whole]).view(-1, length - 1)
    return torch.nn.functional.pad(rows, (1, 0), value=bos)
