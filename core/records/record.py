"""What every record has in common."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_serializer

from ..errors import InputError
from ..tables import read_json, write_text

Serialize: TypeAlias = Callable[..., dict[str, JsonValue]]
"""What a record's serializer is given: pydantic's own way for it."""


class Record(BaseModel):
    """Base of every record: frozen, unknown entries refused, fields documented by docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def to_json(self) -> str:
        """Strict JSON (no NaN), indented, entries in the order of the fields."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False)


class SparseRecord(Record):
    """A record that writes only the entries that are there: those that are None are left out."""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: Serialize) -> dict[str, JsonValue]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class Versioned(Record):
    """A record that has a file of its own, whose first entry names its format.

    A subclass sets :attr:`FORMAT` and :attr:`REMEDY`; the file is refused where it names another
    format, older or newer.
    """

    FORMAT: ClassVar[str]
    """Name and version of the format, such as ``cleansteer-allowlist/1``."""
    REMEDY: ClassVar[str]
    """What to do about a file that cannot be read, told at the end of the line."""

    format: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record's file.

        Raises:
            InputError: it is missing, not JSON, of another format, or lacks an entry.

        """
        data = read_json(path)
        if data.get("format") != cls.FORMAT:
            raise InputError(
                f"{path} has format {data.get('format')!r}, expected {cls.FORMAT!r}; {cls.REMEDY}"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            entry = ".".join(str(part) for part in first["loc"])
            problem = "is missing" if first["type"] == "missing" else first["msg"]
            problem = problem.removeprefix("Value error, ")
            raise InputError(f"{path}: entry {entry!r}: {problem}; {cls.REMEDY}") from None

    def write(self, path: Path) -> None:
        """Write the record's file, atomically."""
        write_text(path, self.to_json() + "\n")
