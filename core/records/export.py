"""What an exported file holds."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import JsonValue

from ..choices import Tokens
from .record import Record, Versioned


class ExportedFile(Record):
    """The file that a sidecar lies beside."""

    name: str
    format: str


class ExportedModel(Record):
    """The model that an edit is for."""

    name: str
    """Hub id or directory."""
    type: str
    """Hugging Face's name of the architecture."""
    layers: int


class ExportedEdit(Record):
    """A vector that is added at one hook point."""

    hook: str
    """TransformerLens' name of the hook point."""
    layer: int
    """The layer that it names."""
    site: str
    """The place there."""
    stored_as: str | None
    """Where it stands in the file; None: nowhere, since it adds nothing."""
    sae: Mapping[str, JsonValue]
    """Release and id, or path; and the fingerprint."""
    features: list[int]
    scale: list[float]
    """How far each feature is pushed, in units of its activation."""
    norm: float
    """Of the vector, in units of the activations at the hook point."""


class ExportRecord(Versioned):
    """The JSON file beside an export: what is added where, and what it was made of."""

    FORMAT: ClassVar[str] = "cleansteer-export/1"
    REMEDY: ClassVar[str] = "export anew"

    format: Literal["cleansteer-export/1"] = "cleansteer-export/1"
    file: ExportedFile
    source: Mapping[str, JsonValue]
    """The adapter's directory; or features, setting and coefficient."""
    model: ExportedModel
    operation: Literal["add"] = "add"
    positions: Tokens = "all"
    """The tokens that it is added at, as an adapter's configuration has them."""
    edit_bos: bool = True
    """Whether BOS at the start is among them."""
    dtype: Literal["float32"] = "float32"
    edits: list[ExportedEdit]
    notes: list[str]
    """What a user should know of the file."""
