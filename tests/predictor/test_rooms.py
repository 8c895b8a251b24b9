"""The three rooms: what they offer, what they import, and how late."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import cleansteer.predictor
import pytest

ROOMS = ("model", "verdict", "evidence")
"""From the ground up: each may import those before it."""
FOLDER = Path(cleansteer.predictor.__file__).parent


@pytest.mark.parametrize("room", ["", *(f".{room}" for room in ROOMS)])
def test_a_room_offers_what_it_lists_again_and_again(room: str) -> None:
    module = importlib.import_module(f"cleansteer.predictor{room}")
    for name in module.__all__:
        first = getattr(module, name)
        assert not isinstance(first, type(ast)), f"{name} is a module"
        assert getattr(module, name) is first
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_those_below_it_alone(room: str) -> None:
    above = ROOMS[ROOMS.index(room) + 1 :]
    for path in (FOLDER / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                assert (node.module or "").split(".")[0] not in above, path


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = ("sklearn", "lightgbm", "mapie", "matplotlib", "torch", "statsmodels")
    code = (
        "import sys; import cleansteer.predictor.model, cleansteer.predictor.evidence; "
        "from cleansteer.predictor.verdict import judge; "
        "from cleansteer.predictor.model import ABSOLUTE, predictor_sets, primary_labels; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
