"""A corpus that is always there: the docstrings of installed Python packages.

The miniature models are trained and screened on it. Nothing is copied or downloaded:
the texts are read, where Python runs, with :mod:`ast` (no code of the packages is imported).
"""

import ast
import hashlib
import importlib.util
import random
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from .errors import InputError

Split = Literal["train", "validation", "test"]

STDLIB = "stdlib"
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "tests", "test", "idle_test", "__pycache__"}
_BLOCKS = {"body", "orelse", "finalbody", "handlers", "cases"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def package_root(package: str) -> Path:
    """Folder of an installed package, or of the standard library for ``"stdlib"``.

    Raises:
        InputError: the package is not installed.

    """
    if package == STDLIB:
        return Path(sysconfig.get_paths()["stdlib"])
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except ValueError:  # __main__ has none
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"corpus package {package!r} is not installed as a package with a folder; expected "
            f"'stdlib' or such a package; install it (pip install {package}) or take it out of "
            "`packages`"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def split_of(name: str) -> Split:
    """The split a source file belongs to, by a hash of ``package/relative/path.py``.

    92 % of the files are ``train``, 4 % ``validation``, 4 % ``test``. Files, not docstrings, are
    split, because docstrings of one file repeat each other.
    """
    bucket = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") % 100
    if bucket < 92:
        return "train"
    return "validation" if bucket < 96 else "test"


def source_files(packages: Sequence[str], split: Split) -> list[tuple[str, Path]]:
    """``(package/relative/path.py, path)`` of every source file of a split, sorted by name."""
    found = []
    for package in packages:
        root = package_root(package)
        for path in root.rglob("*.py"):
            relative = path.relative_to(root)
            if _SKIPPED_FOLDERS.isdisjoint(relative.parts):
                name = f"{package}/{relative.as_posix()}"
                if split_of(name) == split:
                    found.append((name, path))
    return sorted(found)


def docstrings_of(path: Path) -> Iterator[str]:
    """Docstrings of a source file's module, classes and functions; none where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escape sequences
            tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in _statements(tree):
        if isinstance(node, _DOCUMENTED):
            text = ast.get_docstring(node)
            if text:
                yield text


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements of a tree in the order of ``ast.walk``, which also walks through expressions, most
    of the nodes.
    """
    nodes = deque([tree])
    while nodes:
        node = nodes.popleft()
        for field in node._fields:
            if field in _BLOCKS:
                block = getattr(node, field)
                nodes.extend(block if isinstance(block, list) else ())
        yield node


def iterate_docstrings(packages: Sequence[str], split: Split, seed: int) -> Iterator[str]:
    """Docstrings of the packages' files of one split, file by file in a seeded order.

    The order of the files is shuffled so that a reader who stops early has a fair sample of all
    the packages.
    """
    files = source_files(packages, split)
    random.Random(seed).shuffle(files)
    for _, path in files:
        yield from docstrings_of(path)


def docstrings(packages: Sequence[str], split: Split = "train", seed: int = 0) -> list[str]:
    """The distinct docstrings of installed packages, white space normalised: a corpus at hand.

    Args:
        packages: names of installed packages; ``stdlib`` is the standard library.
        split: which files' docstrings: ``train``, ``validation`` or ``test``; none is in two.
        seed: of the order of the files.

    Raises:
        InputError: a package is not installed.

    """
    texts = (" ".join(text.split()) for text in iterate_docstrings(packages, split, seed))
    return list(dict.fromkeys(texts))
