"""The settings that ship with the package."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "settings"


def bundled_settings() -> dict[str, Path]:
    """File of every setting that ships with the package, by the setting's name, in their order."""
    return dict(sorted((path.stem, path) for path in FOLDER.glob("*.toml")))
