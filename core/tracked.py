"""The file in which a training keeps what its features are doing."""

from pathlib import Path

import pandas as pd

from .errors import InputError
from .tables import read_table

TRACKING = "tracking.parquet"
COLUMNS = ("step", "adapter", "hook", "feature", "description", "parameter", "value", "moved")
_KEYS = ["adapter", "hook", "feature", "description"]


def read_tracking(folder: Path) -> pd.DataFrame:
    """What was tracked in a training's directory.

    Raises:
        InputError: there is none, or it is broken.

    """
    path = folder / TRACKING
    if not path.is_file():
        raise InputError(
            f"{folder} holds no {TRACKING}; expected the --out of a `cleansteer train` of features that "
            "has begun; correct it, or wait"
        )
    return read_table(path, COLUMNS)


def movers(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The features that moved most up to the last step, by the largest move of any of their parameters:
    a row for each, with the value and the move of every parameter.

    Args:
        table: see :func:`read_tracking`.
        count: how many.

    Returns:
        Columns ``adapter``, ``hook``, ``feature``, ``description``, then ``PARAMETER`` and
        ``PARAMETER_moved`` for each, by falling move.

    """
    last = table[table["step"] == table["step"].max()]
    wide = last.pivot_table(
        index=_KEYS, columns="parameter", values=["value", "moved"], sort=False, dropna=False
    )
    wide = wide.dropna(how="all")
    most = wide["moved"].abs().max(axis=1).sort_values(ascending=False, kind="stable")
    wide = wide.loc[most.index[:count]]
    names = {"value": "{}", "moved": "{}_moved"}
    wide.columns = pd.Index([names[kind].format(name) for kind, name in wide.columns])
    found: pd.DataFrame = wide.reset_index()
    return found
