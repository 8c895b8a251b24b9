"""Descriptions of features in files: CSV, JSON lines, and Neuronpedia's exports."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import InputError

INDEX = ("index", "feature")
DESCRIPTION = ("description", "label")
BATCHES = "batch-*.jsonl.gz"
"""Files of an export of Neuronpedia's."""
_EXPECTED = (
    "expected .csv with the columns index and description, or .jsonl with these keys, or a directory "
    f"of Neuronpedia's {BATCHES}"
)
_LONGEST = 2000  # characters: more is no description
_LONGEST_LINE = 1 << 20


@dataclass
class Descriptions:
    """What was read."""

    texts: dict[int, str] = field(default_factory=dict)
    """Descriptions by feature, each in one line."""
    n_rows: int = 0
    """How many rows there were."""
    n_skipped: int = 0
    """Of these, the ones that describe no feature."""
    first_problem: str = ""
    """What is wrong with the first of them, and where it stands."""

    def take(self, row: object, n_features: int, where: str, repeats: bool = False) -> None:
        """Take a row, or count it as skipped; with ``repeats`` a feature may stand there again, and the
        first description holds.
        """
        self.n_rows += 1
        problem = self._take(row, n_features, repeats)
        if problem:
            self.skip(f"{where}: {problem}")

    def skip(self, problem: str) -> None:
        """Count a row that is none."""
        self.n_skipped += 1
        self.first_problem = self.first_problem or problem

    def _take(self, row: object, n_features: int, repeats: bool) -> str:
        """What is wrong with it; nothing: it is taken."""
        if not isinstance(row, dict):
            return "no JSON object"
        value, description = _first(row, INDEX), _first(row, DESCRIPTION)
        text = str(value).strip() if isinstance(value, int | str) else ""
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
            return f"{value!r:.40} is no index of a feature"
        if len(text) > 12 or int(text) >= n_features:
            return f"feature {text:.20} is out of range, the SAE has 0 to {n_features - 1}"
        if not isinstance(description, str) or not description.strip():
            return f"description {description!r:.40} is no text"
        if int(text) in self.texts:
            return "" if repeats else f"feature {text} stands there twice"
        self.texts[int(text)] = in_a_line(description)
        return ""


def in_a_line(text: str) -> str:
    """A description as one line that is safe to print: blanks for line breaks, no control characters."""
    joined = " ".join(text.split())
    return "".join(char for char in joined if char.isprintable())[:_LONGEST]


def check_file(path: Path) -> None:
    """Refuse a file that is not there, or of another ending.

    Raises:
        InputError: it is so.

    """
    if not path.is_file():
        raise InputError(f"--descriptions {path} does not exist; {_EXPECTED}; correct the name")
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"--descriptions {path} ends in {path.suffix!r}; {_EXPECTED}; rename it")


def read_file(path: Path, n_features: int) -> Descriptions:
    """Descriptions in a file: CSV with a heading, or JSON lines; index may be called ``feature`` and
    description ``label``. Rows that describe no feature of the SAE are skipped and counted.

    Raises:
        InputError: no such file, another format, or columns that are missing.

    """
    check_file(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"--descriptions {path} is not UTF-8 text ({error.reason} at byte {error.start}); "
            f"{_EXPECTED}; save it as UTF-8"
        ) from None
    found = Descriptions()
    if path.suffix.lower() == ".jsonl":
        _read_lines(text.split("\n"), found, n_features)
    else:
        _read_csv(text, path, found, n_features)
    return found


def read_export(folder: Path, n_features: int, listing: str | None) -> Descriptions:
    """Descriptions in a local directory of Neuronpedia's export: ``batch-*.jsonl.gz`` in it, or in its
    ``explanations`` folder. Of several descriptions of a feature the first holds.

    Args:
        folder: the directory.
        n_features: how many features the SAE has.
        listing: where Neuronpedia has the SAE, ``model/source``; None: not known.

    Raises:
        InputError: it holds no such files, one is broken, or they describe another SAE.

    """
    paths = sorted(folder.glob(BATCHES)) or sorted(folder.glob(f"explanations*/{BATCHES}"))
    if not paths:
        raise InputError(
            f"--descriptions {folder} holds no {BATCHES}; {_EXPECTED}; correct the name"
        )
    found = Descriptions()
    for path in paths:
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                _read_batch(lines, path.name, found, n_features, listing)
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise InputError(
                f"--descriptions {path}: no gzip of JSON lines ({type(error).__name__}); expected what "
                "Neuronpedia exports; download it again"
            ) from None
    return found


def _read_batch(
    lines: io.TextIOBase, name: str, found: Descriptions, n_features: int, listing: str | None
) -> None:
    number = 0
    while line := lines.readline(_LONGEST_LINE):
        number += 1
        where = f"{name}, line {number}"
        if len(line) == _LONGEST_LINE:
            raise InputError(
                f"--descriptions {where} is longer than {_LONGEST_LINE} characters; expected what "
                "Neuronpedia exports; download it again"
            )
        row = _parsed(line)
        if isinstance(row, dict) and listing is not None:
            _check_listing(row, where, listing)
        if row is not None:
            found.take(row, n_features, where, repeats=True)


def _check_listing(row: dict[str, object], where: str, listing: str) -> None:
    named = f"{row.get('modelId', '')}/{row.get('layer', '')}"
    if "modelId" in row and "layer" in row and named != listing:
        raise InputError(
            f"--descriptions {where}: describes {named}, the SAE is {listing}; expected its own; "
            "download those"
        )


def _read_lines(lines: Iterable[str], found: Descriptions, n_features: int) -> None:
    for number, line in enumerate(lines, 1):
        row = _parsed(line)
        if row is not None:
            found.take(row, n_features, f"line {number}")


def _parsed(line: str) -> object:
    """What a line holds: None where it is empty, its text where it is no JSON."""
    if not line.strip():
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line


def _read_csv(text: str, path: Path, found: Descriptions, n_features: int) -> None:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [str(name) for name in reader.fieldnames or ()]
    for names in (INDEX, DESCRIPTION):
        if not any(name in columns for name in names):
            raise InputError(
                f"--descriptions {path}: no {names[0]!r} among {', '.join(columns) or 'nothing'}; "
                f"{_EXPECTED}; name it so"
            )
    try:
        for row in reader:
            found.take(dict(row), n_features, f"line {reader.line_num}")
    except csv.Error as error:
        raise InputError(
            f"--descriptions {path}, line {reader.line_num}: not CSV ({error}); {_EXPECTED}; correct it"
        ) from None


def _first(row: dict[str, object], names: tuple[str, ...]) -> object:
    return next((row[name] for name in names if name in row), None)
