"""The product's own modules, for the rules of the house."""

from pathlib import Path

import cleansteer

ROOT = Path(cleansteer.__file__).parent
_OUTSIDE = {"docs", "examples", "tests"}
"""Folders that hold Python and are no room."""


def rooms() -> set[str]:
    """Folders at the top that hold modules, whether they are packaged or not."""
    return {
        path.parent.name
        for path in ROOT.glob("*/*.py")
        if path.parent.name not in _OUTSIDE and not path.parent.name.startswith(".")
    }


def modules() -> list[Path]:
    """Every module of the product, in order."""
    inside = (path for room in rooms() for path in (ROOT / room).rglob("*.py"))
    return sorted([*ROOT.glob("*.py"), *inside])


def name_of(path: Path) -> str:
    """Its path from the root."""
    return path.relative_to(ROOT).as_posix()
