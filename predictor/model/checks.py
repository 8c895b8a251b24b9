"""What a table of statistics or labels must be before a model sees it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.errors import InputError

Array = NDArray[np.float64]

LEAST_FITTED = 30
"""Fewest labelled features that a predictor is fitted on, and that a verdict asks for."""
LEAST_SPLIT = 15
"""Fewest labelled features that the fresh check splits: the held-out ones give three groups of one."""


def finite_values(table: pd.DataFrame, columns: Sequence[str], what: str) -> Array:
    """Columns of a table as numbers, ``[feature, column]``.

    Raises:
        InputError: a column is missing or not numeric, or a value is not finite; all are named.

    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(
            f"{what} lack {', '.join(map(repr, missing))}, expected {', '.join(columns)}; compute them, "
            "or leave them out"
        )
    for column in columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            wrong = table[column][pd.to_numeric(table[column], errors="coerce").isna()]
            raise InputError(
                f"{what}: column {column!r} holds {wrong.iloc[0]!r} for feature {wrong.index[0]}, "
                "expected numbers; correct it or leave the column out"
                if len(wrong)
                else f"{what}: column {column!r} holds numbers as text, expected numbers; convert it"
            )
    values = np.ascontiguousarray(table[list(columns)].to_numpy(dtype=np.float64))
    if not np.isfinite(values).all():
        row, column_number = np.argwhere(~np.isfinite(values))[0]
        bad = int((~np.isfinite(values)).sum())
        raise InputError(
            f"{what}: column {columns[column_number]!r} holds {values[row, column_number]} for feature "
            f"{table.index[row]} ({bad} such value{'s' * (bad > 1)} in all), expected finite numbers; "
            "compute it anew or leave the column out"
        )
    return values


def distinct_features(table: pd.DataFrame, what: str) -> None:
    """Refuse a table that holds a feature twice.

    Raises:
        InputError: naming the first of them.

    """
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()]
        raise InputError(
            f"{what}: feature {twice[0]} is there more than once ({len(twice)} rows too many), "
            "expected every feature once; keep one row of each"
        )


def aligned(statistics: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The labels in the order of the statistics.

    Raises:
        InputError: they are of other features, so perhaps of another setting.

    """
    if statistics.index.equals(labels.index):
        return labels
    others = labels.index.difference(statistics.index)
    lacking = statistics.index.difference(labels.index)
    if len(others) or len(lacking):
        some = [f"feature {f} has no statistics" for f in others[:1]]
        some += [f"feature {f} has no label" for f in lacking[:1]]
        raise InputError(
            f"labels and statistics are of different features ({len(labels)} and {len(statistics)}; "
            f"{', '.join(some)}); expected the same ones: do they belong to "
            "the same setting?"
        )
    return labels.loc[statistics.index]
