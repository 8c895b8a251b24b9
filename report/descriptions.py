"""Descriptions of features, from a file of index and description."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..core.errors import InputError

INDEX = ("index", "feature")
DESCRIPTION = ("description", "label")
_EXPECTED = "expected .csv with the columns index and description, or .jsonl with these keys"
_LONGEST = 2000  # characters: more is no description


def read_descriptions(path: Path, n_features: int) -> dict[int, str]:
    """Descriptions by feature.

    CSV with a heading, or JSON lines; index may be called ``feature`` and description ``label``.

    Raises:
        InputError: no such file, another format, an index that is no feature's or stands there
            twice, or an empty file.

    """
    if not path.is_file():
        state = "is no file" if path.exists() else "does not exist"
        raise InputError(f"--descriptions {path} {state}; {_EXPECTED}; correct the name")
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"--descriptions {path} ends in {path.suffix!r}; {_EXPECTED}; rename it")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"--descriptions {path} is not UTF-8 text ({error.reason} at byte {error.start}); "
            f"{_EXPECTED}; save it as UTF-8"
        ) from None
    descriptions: dict[int, str] = {}
    for line, row in readers[path.suffix.lower()](text, path):
        index = _index(_first(row, INDEX), n_features, f"--descriptions {path}, line {line}")
        description = _first(row, DESCRIPTION)
        if not isinstance(description, str):
            raise InputError(
                f"--descriptions {path}, line {line}: description {description!r} is no text; "
                f"{_EXPECTED}; correct it"
            )
        if index in descriptions:
            raise InputError(
                f"--descriptions {path}, line {line}: feature {index} stands there twice; expected once; "
                "remove one"
            )
        descriptions[index] = description.strip()[:_LONGEST]
    if not descriptions:
        raise InputError(f"--descriptions {path} describes no feature; {_EXPECTED}; fill it")
    return descriptions


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    _check_keys(reader.fieldnames or (), f"--descriptions {path}")
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(
            f"--descriptions {path}, line {reader.line_num}: not CSV ({error}); {_EXPECTED}; correct it"
        ) from None


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for line, part in enumerate(text.split("\n"), 1):
        if not part.strip():
            continue
        try:
            row = json.loads(part)
        except ValueError as error:
            raise InputError(
                f"--descriptions {path}, line {line}: not JSON ({error}); {_EXPECTED}; correct it"
            ) from None
        if not isinstance(row, dict):
            raise InputError(
                f"--descriptions {path}, line {line}: no JSON object; {_EXPECTED}; correct it"
            )
        _check_keys(row, f"--descriptions {path}, line {line}")
        yield line, row


def _check_keys(keys: Iterable[str], where: str) -> None:
    keys = list(keys)
    for names in (INDEX, DESCRIPTION):
        if not any(name in keys for name in names):
            raise InputError(
                f"{where}: no {names[0]!r} among {', '.join(map(str, keys)) or 'nothing'}; {_EXPECTED}; "
                "name it so"
            )


def _first(row: dict[str, object], names: tuple[str, ...]) -> object:
    return next(row[name] for name in names if name in row)


def _index(value: object, n_features: int, where: str) -> int:
    text = str(value).strip() if isinstance(value, int | str) else ""
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
        raise InputError(
            f"{where}: {value!r} is no index of a feature; expected 0 and up; correct it"
        )
    if int(text) >= n_features:
        raise InputError(
            f"{where}: feature {text} is out of range, the run has 0 to {n_features - 1}; give the "
            "descriptions of this SAE"
        )
    return int(text)
