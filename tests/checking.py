"""Signatures are checked in tests, and only there: shapes by jaxtyping, other types by beartype.

Installed before the first import of cleansteer (see conftest.py), so that every function of the
rooms below checks what it is given and what it returns. Names that only type checkers import, and
a class's own name in its methods, pass unchecked.
"""

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintException
from jaxtyping import install_import_hook

ROOMS = ("core", "features", "steering_eval", "predictor", "adapters", "study")

unchecked: set[str] = set()
"""Functions with a type that cannot be checked at run time: a protocol of another library."""

_check = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int is a float
        # beartype knows Self only where it decorates whole classes; jaxtyping decorates methods.
        hint_overrides=FrozenDict({Self: Any}),
    )
)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's signature, as far as its types can be checked."""
    try:
        return _check(function)
    except BeartypeDecorHintException:
        unchecked.add(f"{function.__module__}.{function.__qualname__}")
        return function


def install() -> None:
    install_import_hook([f"cleansteer.{room}" for room in ROOMS], "checking.check")
