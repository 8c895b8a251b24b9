"""Settings: what to screen and how, read from a TOML file.

Every field is documented once, here; ``cleansteer settings --fields`` prints these texts.
"""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo

from .errors import InputError
from .sections import (
    IN_MEMORY,
    CorpusSetting,
    ModelSetting,
    SaeSetting,
    SettingSection,
    SourceSection,
    SteeringSetting,
)

__all__ = [
    "CorpusSetting",
    "ModelSetting",
    "SaeSetting",
    "Setting",
    "SettingSection",
    "SourceSection",
    "SteeringSetting",
    "field_texts",
    "parse_setting",
    "read_setting",
]

_LONGEST_NAME = 200
_SOURCE_KEYS = {"dataset", "config", "split", "path", "packages"}


class Setting(SettingSection):
    """Everything that determines a run's tables."""

    name: str
    """Name of the setting, and of its run directory: no path."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    model: ModelSetting
    """The language model."""
    sae: SaeSetting
    """The SAE whose features are steered."""
    downstream_sae: SaeSetting
    """The SAE in which collateral is read; its hook lies at or after the first one's."""
    corpus: CorpusSetting
    """Contexts for statistics and labels."""
    heldout_corpus: CorpusSetting
    """Fresh contexts for the held-out screening; keys left out are as in [corpus]."""
    steering: SteeringSetting = SteeringSetting()
    """Steering and its labels."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator("name")
    @classmethod
    def _names_a_directory(cls, name: str) -> str:
        whole = name.isprintable() and name.strip() == name and not set(name) & set("/\\")
        if not whole or name in ("", ".", "..") or len(name.encode()) > _LONGEST_NAME:
            raise ValueError(
                f"{name[:80]!r} cannot name the run's directory in runs/; expected 1 to "
                f"{_LONGEST_NAME} bytes without slashes, other than '.' and '..'"
            )
        return name

    @property
    def folder(self) -> Path:
        """The folder that the setting's relative paths start from."""
        return self._folder

    def placed_in(self, folder: Path) -> "Setting":
        """A copy whose relative paths start from ``folder``."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def locate(self, path: str) -> Path:
        """A path of the setting, relative to the folder of its file."""
        return self._folder / path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of every field, as 16 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def replace(self, section: str, **changes: object) -> "Setting":
        """A copy with keys of one section changed, validated as a file would be.

        Raises:
            InputError: a changed value is not allowed.

        """
        data = self.model_dump()
        data[section].update(changes)
        source = f"setting {self.name!r}"
        return parse_setting(data, source, "give another value").placed_in(self._folder)

    def differences(self, other: "Setting") -> list[str]:
        """``key: theirs -> ours`` for every field in which another setting differs."""
        ours, theirs = (_flatten(s.model_dump(mode="json")) for s in (self, other))
        return [
            f"{key}: {theirs.get(key)!r} -> {ours.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def parse_setting(
    data: dict[str, Any], source: str, remedy: str = "change it in the file"
) -> Setting:
    """Validate the contents of a setting's file; ``remedy`` ends the line about a wrong value.

    Raises:
        InputError: with one line that names the first offending key, its value and what was
            expected.

    """
    try:
        return Setting.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        known = _known_keys(first["loc"]) if first["type"] == "extra_forbidden" else None
        if known is not None:
            raise InputError(
                f"{source}: unknown key {key!r}; expected one of: {', '.join(known)}; remove or "
                "rename it"
            ) from None
        if first["type"] == "missing":
            raise InputError(f"{source}: key {key!r} is missing; add it") from None
        given = "" if first["type"] == "value_error" else f" = {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{source}: {key}{given}: {message}; {remedy}") from None


def _known_keys(location: tuple[int | str, ...]) -> list[str] | None:
    section: Any = Setting
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return [key for key in section.model_fields if key != IN_MEMORY]


def read_setting(path: Path) -> Setting:
    """Read a setting from a TOML file.

    Keys missing in ``[heldout_corpus]`` are taken from ``[corpus]``; naming another source of
    texts (`dataset`, `path`, `packages`) replaces the source of ``[corpus]``.

    Raises:
        InputError: the file is missing, not UTF-8, not TOML, or does not fit the schema.

    """
    try:
        data = tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"setting file {path} does not exist; give the path of a .toml file"
        ) from None
    except IsADirectoryError:
        raise InputError(f"setting {path} is a directory; expected a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"setting file {path} is not valid TOML: {error}; mend that place"
        ) from None
    for section, values in data.items():
        if isinstance(values, dict) and IN_MEMORY in values:
            raise InputError(
                f"{path}: {section}.{IN_MEMORY} is for objects that are given in Python; name a file, a "
                "hub id or a directory instead"
            )
    corpus, heldout = data.get("corpus"), data.setdefault("heldout_corpus", {})
    if isinstance(corpus, dict) and isinstance(heldout, dict):
        dropped = _SOURCE_KEYS if not {"dataset", "path", "packages"}.isdisjoint(heldout) else set()
        inherited = {key: value for key, value in corpus.items() if key not in dropped}
        data["heldout_corpus"] = inherited | heldout
    return parse_setting(data, source=str(path)).placed_in(path.resolve().parent)


def field_texts() -> dict[str, dict[str, str]]:
    """Meaning and default of every key of a setting's file, by ``section.key``."""
    texts: dict[str, dict[str, str]] = {}
    for name, field in Setting.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, SettingSection):
            for key, inner in section.model_fields.items():
                if key != IN_MEMORY:
                    texts[f"{name}.{key}"] = _field_text(inner)
        else:
            texts[name] = _field_text(field)
    return texts


def _field_text(field: FieldInfo) -> dict[str, str]:
    default = "required" if field.is_required() else repr(field.default)
    return {"default": default, "meaning": " ".join((field.description or "").split())}
