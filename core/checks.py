"""Checks of what is given, shared by the commands and the Python functions."""

import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import InputError

_EXTRAS = {"aenum": "train", "gguf": "train", "peft": "train", "trl": "train", "optuna": "sweep"}
"""Packages that an extra brings."""


def check_packages(*names: str) -> None:
    """Refuse what needs packages that are not installed.

    Raises:
        InputError: one is missing.

    """
    for name in names:
        if find_spec(name) is None:
            extra = _EXTRAS.get(name)
            if extra is not None:
                remedy = (
                    f"expected what cleansteer[{extra}] brings; pip install 'cleansteer[{extra}]'"
                )
            else:
                remedy = f"no extra of cleansteer brings it; pip install {name}"
            raise InputError(f"package {name} is not installed; {remedy}")


def check_parents(out: Path, name: str = "--out") -> None:
    """Refuse a path to write to that leads through a file.

    Raises:
        InputError: it does; ``name`` says of which option.

    """
    for parent in out.absolute().parents:
        if parent.is_file():
            raise InputError(f"{name} {out} lies in {parent}, which is a file; change it")


def check_file(out: Path, name: str) -> None:
    """Refuse a file to write that is a directory, or would lie in a file.

    Raises:
        InputError: it is; ``name`` says of which option.

    """
    if out.is_dir():
        raise InputError(f"{name} {out} is a directory, expected a file's name; change it")
    check_parents(out, name)


def listed_features(text: str, name: str) -> list[int]:
    """Indices of features, in the order of a list such as ``1,2,3`` or of a file that holds one.

    Raises:
        InputError: neither; ``name`` says of which option.

    """
    is_file = os.path.isfile(text)  # noqa: PTH113 - pathlib raises where a list is too long for a name
    try:
        listed = Path(text).read_text("utf-8-sig") if is_file else text
    except UnicodeDecodeError:
        raise InputError(
            f"{name} {text} is not UTF-8 text; expected indices of features; give such a file"
        ) from None
    parts = listed.replace(",", " ").split() or [""]
    wrong = next((part for part in parts if not (part.isascii() and part.isdigit())), None)
    if wrong is not None:
        where = f"file {text}" if is_file else repr(text[:80])
        missing = "" if is_file else ", and no such file exists"
        raise InputError(
            f"{name} {where}: {wrong[:80]!r} is no index of a feature{missing}; expected whole numbers "
            "such as 1,2,3, or a file of them; correct it"
        )
    return [int(part) for part in parts]


def check_features(features: Any, where: str) -> list[int]:
    """Indices of features, rising.

    Raises:
        InputError: not a list of indices, empty, with a negative one or one twice.

    """
    if isinstance(features, str | bytes) or not hasattr(features, "__iter__"):
        raise InputError(
            f"{where}: features are {features!r}; expected a list of indices; change it"
        )
    indices: list[int] = []
    for feature in features:
        whole = hasattr(feature, "__index__") and not isinstance(feature, bool)
        if not whole or int(feature) < 0:
            raise InputError(
                f"{where}: feature {feature!r} is no index; expected whole numbers from 0; remove it"
            )
        indices.append(int(feature))
    if not indices:
        raise InputError(f"{where}: no feature is listed; expected at least one; list some")
    twice = sorted(feature for feature, count in Counter(indices).items() if count > 1)
    if twice:
        raise InputError(
            f"{where}: feature {twice[0]} is listed twice; expected each once; remove it"
        )
    return sorted(indices)


def read_number(name: str, text: str) -> float:
    """The number that a text spells, whole where it is spelled so.

    Raises:
        InputError: it spells none; ``name`` says of which option.

    """
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise InputError(f"{name} {text!r} is no number; expected one; change it") from None


def check_type(name: str, value: object, kinds: type | tuple[type, ...], expected: str) -> None:
    """Refuse an argument of another type; a truth value is no number.

    Raises:
        TypeError: it is of none of ``kinds``; ``expected`` says of which it should be.

    """
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise TypeError(
            f"{name} is {value!r:.80}, of type {type(value).__name__}; expected {expected}"
        )
