"""Signatures are checked in tests, and only there: shapes by jaxtyping, other types by beartype.

Installed before the first import of cleansteer (see conftest.py), so that every function of the
rooms below checks what it is given and what it returns.
"""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

ROOMS = ("core", "features", "steering_eval", "predictor", "adapters", "study")

check = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int is a float
        # beartype knows Self only where it decorates whole classes; jaxtyping decorates methods.
        hint_overrides=FrozenDict({Self: Any}),
    )
)


def install() -> None:
    install_import_hook([f"cleansteer.{room}" for room in ROOMS], "checking.check")
