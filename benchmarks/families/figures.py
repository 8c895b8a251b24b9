"""Rows of the comparison: runs and published settings, and what they have in common."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .screened import Screened
from .table import OURS, PUBLISHED

Row = dict[str, Any]
MEAN = "mean"
"""In the column ``setting``: the mean over our runs; published figures are never in it."""


@dataclass(frozen=True)
class Compared:
    """A run with its estimates."""

    screened: Screened
    estimates: Mapping[str, Any]

    @property
    def screening(self) -> Mapping[str, Any]:
        """What ``screening.json`` holds."""
        return self.screened.screening

    def row(self, **values: Any) -> Row:
        """A row of this run."""
        return {"setting": self.screened.name, "origin": OURS} | values


def published_row(setting: str, **values: Any) -> Row:
    """A row of a published setting."""
    return {"setting": setting, "origin": PUBLISHED} | values


def interval(name: str, figure: Mapping[str, float] | None) -> Row:
    """Columns of a figure and the ends of its interval; none where there is no figure."""
    if figure is None:
        return {}
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}


def intervals(figures: Mapping[str, Mapping[str, float]]) -> Row:
    """:func:`interval` of several figures, by name."""
    return {key: v for name, figure in figures.items() for key, v in interval(name, figure).items()}


def mean_row(rows: Sequence[Row], names: Iterable[str]) -> list[Row]:
    """The mean of our rows' figures, without an interval; no row where there are less than two."""
    if len(rows) < 2:
        return []
    means = {n: math.fsum(row[n] for row in rows) / len(rows) for n in names if _all_have(rows, n)}
    return [{"setting": MEAN, "origin": OURS} | means]


def _all_have(rows: Sequence[Row], name: str) -> bool:
    return all(name in row for row in rows)


def frame(rows: Sequence[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a frame with these columns, each followed by the ends of its interval if it has any."""
    there = {name for row in rows for name in row}
    ordered = [
        name
        for column in columns
        for name in (column, f"{column}_low", f"{column}_high")
        if name == column or name in there
    ]
    return pd.DataFrame(rows, columns=ordered)
