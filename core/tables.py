"""Tables and JSON on disk: written whole or not at all, read with their columns checked."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import pandas as pd
from pydantic import JsonValue

from .errors import InputError

Json: TypeAlias = dict[str, JsonValue]
"""An object of JSON."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically."""
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))


def write_json(path: Path, data: Mapping[str, JsonValue]) -> None:
    """Write strict JSON (no NaN), atomically."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_table(path: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a Parquet table that must have the given columns.

    Raises:
        InputError: the file is missing, is not Parquet, or lacks a column.

    """
    import pyarrow

    if not path.is_file():
        raise InputError(f"table {path} does not exist; run the command that writes it first")
    try:
        table = pd.read_parquet(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"table {path} is not readable Parquet ({error}); write it anew") from None
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(
            f"table {path} lacks the columns {', '.join(missing)}; it holds "
            f"{', '.join(table.columns)}; write it anew"
        )
    return table


def read_json(path: Path) -> Json:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or holds no JSON object.

    """
    if not path.is_file():
        raise InputError(f"file {path} does not exist; run the command that writes it first")
    try:
        data = json.loads(path.read_text("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"file {path} is not JSON ({error}); write it anew") from None
    if not isinstance(data, dict):
        raise InputError(f"file {path} holds no JSON object; write it anew")
    return data
