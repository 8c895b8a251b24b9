"""The bundled settings, by name."""

from os import PathLike
from pathlib import Path

from ..core.bundled import bundled_settings
from ..core.errors import InputError
from ..core.settings import Setting, read_setting


def bundled() -> dict[str, Path]:
    """Name and file of every setting that ships with the package."""
    return bundled_settings()


def miniatures() -> list[str]:
    """The bundled settings whose models and SAEs ship with the package."""
    return [name for name in bundled() if name.startswith("mini-")]


def load_setting(setting: "str | PathLike[str] | Setting") -> Setting:
    """A setting: a bundled one by its name, one from the path of a TOML file, or itself.

    Raises:
        InputError: neither a bundled name nor a file, or the file is wrong.
        TypeError: something else than a name, a path or a setting.

    """
    if isinstance(setting, Setting):
        return setting
    if not isinstance(setting, str | PathLike):
        raise TypeError(
            f"setting is a {type(setting).__name__}, expected the name of a bundled setting, the path of "
            "a .toml file, or a Setting"
        )
    known = bundled()
    if isinstance(setting, str) and setting in known:
        return read_setting(known[setting])
    path = Path(setting)
    if path.suffix == ".toml" or path.exists():
        return read_setting(path)
    raise InputError(
        f"unknown setting {str(setting)!r}; expected one of {', '.join(known)}, or the path of a .toml "
        "file"
    )
