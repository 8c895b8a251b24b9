"""Packages that load their names when they are asked for hide from type checkers what is not there."""

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import rooms


def taken(path: Path) -> list[tuple[str, str]]:
    """Every name that a module takes from one of ours, anywhere in it, and that one's name."""
    package = ["cleansteer", *path.relative_to(rooms.ROOT).parent.parts]
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            source = ".".join([*base, *([node.module] if node.module else [])])
            names += [(source, alias.name) for alias in node.names]
    return names


def has(module: ModuleType, name: str) -> bool:
    if hasattr(module, name):
        return True
    try:
        import_module(f"{module.__name__}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", rooms.modules(), ids=rooms.name_of)
def test_what_a_module_takes_from_another_is_there(path: Path) -> None:
    missing = [
        f"{source}.{name}" for source, name in taken(path) if not has(import_module(source), name)
    ]
    assert not missing
