"""The registry of formats, and what is common to them: the checks before, the sidecar after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ...core.errors import InputError
from ...core.records import ExportRecord
from ...core.records.export import ExportedEdit, ExportedFile, ExportedModel
from ...core.tables import write_atomically
from ..positions import EVERY
from .edits import Edit
from .host import Host


@dataclass(frozen=True)
class Prepared:
    """An export of which all is known to be right."""

    write: Callable[[Path], object]
    """Fills a file."""
    stored_as: tuple[str | None, ...]
    """Where in the file each edit stands; None: nowhere, since it adds nothing."""
    notes: tuple[str, ...] = ()
    """What a user should know of the file."""


Prepare = Callable[[Host, Sequence[Edit]], Prepared]
"""From model and edits; raises InputError where the file would not be exact."""


@dataclass(frozen=True)
class Format:
    """A format of files."""

    ending: str
    prepare: Prepare
    holds_positions: bool = False
    """Whether the file can say that not every token is edited."""


_FORMATS: dict[str, Format] = {}


def register(name: str, ending: str, prepare: Prepare, holds_positions: bool = False) -> None:
    """Add a format (see :class:`Format`).

    Raises:
        ValueError: the name is taken.

    """
    if name in _FORMATS:
        raise ValueError(f"a format named {name!r} is registered already")
    _FORMATS[name] = Format(ending, prepare, holds_positions)


def names() -> tuple[str, ...]:
    """Names of all formats."""
    return tuple(sorted(_FORMATS))


def sidecar_path(out: Path) -> Path:
    """The JSON file beside an export: its whole name, and ``.json``."""
    return out.with_name(f"{out.name}.json")


def check_out(name: str, out: Path, overwrite: bool) -> None:
    """Refuse a file that may not be written in a format.

    Raises:
        InputError: no such format, an ending that is not its own, or something lies there.

    """
    if name not in _FORMATS:
        raise InputError(
            f"format {name!r} is not known; expected one of {', '.join(names())}; change --format"
        )
    ending = _FORMATS[name].ending
    if out.suffix != ending:
        raise InputError(
            f"file {out} does not end as format {name!r} does; expected {ending}; change --out"
        )
    for path in (out, sidecar_path(out)):
        if path.is_dir():
            raise InputError(f"{path} is a directory; expected a file's name; change --out")
        if path.exists() and not overwrite:
            raise InputError(
                f"file {path} exists; expected a new one; change --out, or give --overwrite"
            )


def write_edits(
    name: str,
    host: Host,
    edits: Sequence[Edit],
    out: Path,
    source: Mapping[str, JsonValue],
    overwrite: bool = False,
) -> ExportRecord:
    """Write edits in a format, and beside it a JSON file that says what they are.

    Args:
        name: of the format.
        host: the model that the edits are for.
        edits: what is added, each at its own hook.
        out: the file; the other is ``out`` + ``.json``.
        source: what the edits were made of, for the JSON file.
        overwrite: whether files that lie there may be replaced.

    Returns:
        What the JSON file holds.

    Raises:
        InputError: see :func:`check_out`; or the format cannot hold the edits exactly. Nothing is
            written then.

    """
    check_out(name, out, overwrite)
    which = edits[0].which if edits else EVERY
    if not (which.every or _FORMATS[name].holds_positions):
        raise InputError(
            f"what is exported edits {which.told}, and what reads format {name!r} adds at every token; "
            "expected one that edits all; use --format safetensors, or an adapter through PEFT"
        )
    prepared = _FORMATS[name].prepare(host, edits)
    record = ExportRecord(
        file=ExportedFile(name=out.name, format=name),
        source=source,
        model=ExportedModel(name=host.name, type=host.model_type, layers=len(host.layers)),
        edits=[
            _describe(edit, stored) for edit, stored in zip(edits, prepared.stored_as, strict=True)
        ],
        positions=which.positions,
        edit_bos=which.bos,
        notes=[*prepared.notes, *_notes(edits)],
    )
    write_atomically(out, prepared.write)
    record.write(sidecar_path(out))
    return record


def _notes(edits: Sequence[Edit]) -> list[str]:
    return [
        f"{edit.hook}: the vector is what is added to the stream, which is {edit.place.factor:g} times "
        f"what the module {edit.place.module} gives; divide by that to add it there"
        for edit in edits
        if edit.place.factor != 1
    ]


def _describe(edit: Edit, stored_as: str | None) -> ExportedEdit:
    _, layer, site = edit.hook.split(".", 2)
    return ExportedEdit(
        hook=edit.hook,
        layer=int(layer),
        site=site,
        stored_as=stored_as,
        sae=edit.target.to_dict()["sae"],
        features=list(edit.features),
        scale=edit.scale.tolist(),
        norm=float(edit.vector.norm()),
    )
