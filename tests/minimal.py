"""The least setting that is valid, without files: for tests of one piece."""

from pathlib import Path
from typing import Any

from cleansteer.core.settings import Setting, parse_setting


def data() -> dict[str, Any]:
    return {
        "name": "minimal",
        "model": {"name": "model"},
        "sae": {"path": "primary"},
        "downstream_sae": {"path": "downstream"},
        "corpus": {"path": "texts.txt"},
        "heldout_corpus": {"path": "fresh.txt"},
    }


def setting(folder: Path | None = None, seed: int = 0, **corpus: object) -> Setting:
    """The least setting, with keys of its corpus changed, placed in a folder."""
    made = data() | {"seed": seed, "corpus": {"path": "texts.txt"} | corpus}
    return parse_setting(made, "minimal").placed_in(folder or Path.cwd())
