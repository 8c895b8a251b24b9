"""The bundled settings, by name."""

from pathlib import Path

from ..core.errors import InputError
from ..core.settings import Setting, read_setting

_FOLDER = Path(__file__).parent.parent / "settings"


def bundled() -> dict[str, Path]:
    """Name and file of every setting that ships with the package."""
    files = {path.stem: path for path in _FOLDER.glob("*.toml")}
    return dict(sorted(files.items()))


def miniatures() -> list[str]:
    """The bundled settings whose models and SAEs ship with the package."""
    return [name for name in bundled() if name.startswith("mini-")]


def find_setting(name: str) -> Setting:
    """A bundled setting by its name, or one from the path of a TOML file.

    Raises:
        InputError: neither is there, or the file is wrong.

    """
    known = bundled()
    if name in known:
        return read_setting(known[name])
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return read_setting(path)
    raise InputError(
        f"unknown setting {name!r}; expected one of {', '.join(known)}, or the path of a .toml file"
    )
