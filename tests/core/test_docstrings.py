"""Docstrings as a corpus: those that Python itself sees, split by file, without running code."""

import ast
import importlib
import inspect
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from cleansteer.core.docstrings import (
    docstrings_of,
    iterate_docstrings,
    package_root,
    source_files,
    split_of,
)
from cleansteer.core.errors import InputError
from scipy.stats import binomtest

SPLITS = ("train", "validation", "test")
SHARES = {"train": 0.92, "validation": 0.04, "test": 0.04}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of 60 modules with three docstrings each, which fails when imported."""
    root = tmp_path / "made_up_package"
    for number in range(60):
        folder = root / f"part{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"m{number}.py").write_text(
            f'"""Module {number}."""\nraise RuntimeError\n'
            f'class A:\n    """Class {number}."""\n'
            f'    async def f(self):\n        """Method {number}."""\n',
            "utf-8",
        )
    (root / "__init__.py").write_text("raise RuntimeError\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return root


@pytest.mark.parametrize("module", ["textwrap", "random", "fractions", "json.decoder"])
def test_they_are_those_that_python_sees(module: str) -> None:
    imported = importlib.import_module(module)
    assert imported.__file__ is not None
    found = list(docstrings_of(Path(imported.__file__)))
    classes = [thing for thing in vars(imported).values() if inspect.isclass(thing)]
    members = [thing for owner in [imported, *classes] for thing in vars(owner).values()]
    things = [
        thing
        for thing in [imported, *classes, *members]
        if thing is imported
        or (
            (inspect.isfunction(thing) or inspect.isclass(thing))
            and thing.__module__ == module
            and inspect.getsource(thing)
        )
    ]
    texts = [inspect.cleandoc(thing.__doc__) for thing in things if thing.__doc__]
    assert len(texts) > 5
    assert set(texts) <= set(found)


def test_blocks_of_every_kind_are_looked_into_in_the_order_of_the_tree(tmp_path: Path) -> None:
    openings = ["if x:", "elif y:", "else:", "for x in y:", "else:", "while x:", "else:"]
    openings += ["with x:", "async def g():", "match x:\n  case 1:", "  case 2:"]
    openings += ["try:", "except E:", "else:", "finally:"]
    inner = '        def f():\n            """In block {}."""\n'
    blocks = [f"{opening}\n{inner.format(i)}" for i, opening in enumerate(openings)]
    path = tmp_path / "blocks.py"
    path.write_text("".join(blocks), "utf-8")
    walked = [
        ast.get_docstring(node)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert len(walked) == len(openings)
    assert list(docstrings_of(path)) == walked


def test_no_code_of_the_package_is_run(package: Path) -> None:
    found = [t for split in SPLITS for t in iterate_docstrings([package.name], split, 0)]
    expected = {f"{kind} {n}." for kind in ("Module", "Class", "Method") for n in range(60)}
    assert sorted(found) == sorted(expected)
    assert package.name not in sys.modules


def test_splits_are_a_partition_of_the_files(package: Path) -> None:
    names = [[name for name, _ in source_files([package.name], split)] for split in SPLITS]
    everything = [name for part in names for name in part]
    paths = {f"{package.name}/{p.relative_to(package).as_posix()}" for p in package.rglob("*.py")}
    assert len(everything) == len(set(everything)) == 61
    assert set(everything) == paths
    assert all(part == sorted(part) for part in names)


@pytest.mark.parametrize("split", SPLITS)
def test_shares_of_the_splits(split: str) -> None:
    names = [f"package/folder{i % 17}/module{i}.py" for i in range(20_000)]
    hits = sum(split_of(name) == split for name in names)
    assert binomtest(hits, len(names), SHARES[split]).pvalue > 1e-4


def test_the_split_follows_the_name_alone(package: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved" / package.name
    elsewhere.parent.mkdir()
    before = {split: {n for n, _ in source_files([package.name], split)} for split in SPLITS}
    package.rename(elsewhere)
    sys.path.insert(0, str(elsewhere.parent))
    try:
        importlib.invalidate_caches()
        after = {split: {n for n, _ in source_files([package.name], split)} for split in SPLITS}
    finally:
        sys.path.remove(str(elsewhere.parent))
    assert after == before


def test_the_seed_orders_the_files_and_nothing_else(package: Path) -> None:
    first, again, other = (
        list(iterate_docstrings([package.name], "train", seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)
    files = [text.split()[-1] for text in first]
    changes = sum(one != other for one, other in pairwise(files))
    assert changes == len(set(files)) - 1, "the docstrings of a file stand together"


def test_packages_add_up(package: Path) -> None:
    both = source_files([package.name, "json"], "train")
    alone = source_files([package.name], "train") + source_files(["json"], "train")
    assert both == sorted(alone)


@pytest.mark.parametrize("folder", ["tests", "test", "site-packages", "__pycache__"])
def test_tests_and_installed_packages_are_left_out(package: Path, folder: str) -> None:
    for place in (package / folder, package / "part0" / folder / "deep"):
        place.mkdir(parents=True)
        for number in range(40):
            (place / f"n{number}.py").write_text('"""Not to be read."""\n', "utf-8")
    for split in SPLITS:
        assert "Not to be read." not in iterate_docstrings([package.name], split, 0)


@pytest.mark.parametrize(
    "content", [b"def f(:\n", b'"""\xff"""\n', b'"""a"""\x00\n', b'"""never closed\n']
)
def test_files_that_do_not_parse_have_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "module.py"
    path.write_bytes(content)
    assert list(docstrings_of(path)) == []


@pytest.mark.filterwarnings("error")
def test_other_peoples_invalid_escapes_are_their_own(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""A \\d."""\n', "utf-8")
    assert list(docstrings_of(path)) == ["A \\d."]


def test_the_standard_library_is_a_package() -> None:
    names = {name for split in SPLITS for name, _ in source_files(["stdlib"], split)}
    assert {"stdlib/random.py", "stdlib/json/decoder.py"} <= names
    assert not any("/site-packages/" in name or "/test/" in name for name in names)
    assert package_root("json") == package_root("stdlib") / "json"


@pytest.mark.parametrize("name", ["no_such_package", "not an identifier", "json.decoder", ""])
def test_a_package_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"corpus package '{name}' is not installed"):
        package_root(name)
