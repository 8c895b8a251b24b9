"""Old names keep working: the same objects, with a warning that names the new place."""

import importlib
import subprocess
import sys

import pytest
from cleansteer import moved

PROGRAM = """
import warnings
warnings.simplefilter("error", DeprecationWarning)
from cleansteer.benchmarks.catalogue import find_setting
"""


@pytest.mark.parametrize("old", sorted(moved.MOVED))
def test_an_old_module_is_the_new_one(old: str) -> None:
    for name in [name for name in sys.modules if name.startswith(f"cleansteer.{old}")]:
        del sys.modules[name]
    message = f"cleansteer.{old} has moved to cleansteer."
    with pytest.warns(DeprecationWarning, match=message) as told:
        module = importlib.import_module(f"cleansteer.{old}")
    assert module is importlib.import_module(f"cleansteer.{moved.MOVED[old]}")
    assert module.__spec__ is not None
    assert module.__spec__.name == f"cleansteer.{moved.MOVED[old]}"
    assert "next release" in str(told[0].message)


@pytest.mark.parametrize("new", sorted(moved.RENAMED))
def test_old_functions_are_the_new_ones(new: str) -> None:
    module = importlib.import_module(f"cleansteer.{new}")
    old = next(old for old, place in moved.MOVED.items() if place == new)
    sys.modules.pop(f"cleansteer.{old}", None)
    with pytest.warns(DeprecationWarning, match="has moved to"):
        importlib.import_module(f"cleansteer.{old}")
    for before, now in moved.RENAMED[new].items():
        assert getattr(module, before) is getattr(module, now)


def test_modules_inside_a_moved_package_are_found() -> None:
    from cleansteer.miniatures import text

    sys.modules.pop("cleansteer.benchmarks.miniatures.text", None)
    with pytest.warns(DeprecationWarning, match="has moved to"):
        assert importlib.import_module("cleansteer.benchmarks.miniatures.text") is text


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"cleansteer\.benchmarks\.nothing"):
        importlib.import_module("cleansteer.benchmarks.nothing")


def test_a_program_is_warned() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "has moved to cleansteer.study.catalogue" in done.stderr
