"""Tables that come from elsewhere, such as the comparison of families, as the page shows them."""

from typing import Any, Protocol

import pandas as pd

from .records import Cell, Figure, Grid

ORIGIN = "origin"
PUBLISHED = "published"


class Table(Protocol):
    """A table with its words. Where ``frame`` has a column ``origin``, the rows that say
    ``published`` there are marked as published by others.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def note(self) -> str: ...
    @property
    def frame(self) -> pd.DataFrame: ...


def as_grid(frame: pd.DataFrame) -> Grid:
    """A frame as a table of the page: columns ``x``, ``x_low`` and ``x_high`` are one with an
    interval, and ``origin`` is a mark.
    """
    ends = [c for c in frame if f"{c}_low" in frame and f"{c}_high" in frame]
    hidden = {ORIGIN, *(f"{c}_{end}" for c in ends for end in ("low", "high"))}
    columns = [str(c) for c in frame.columns if c not in hidden]
    rows: list[list[Cell | Figure]] = [
        [_figure(row, column) if column in ends else _cell(row[column]) for column in columns]
        for row in frame.to_dict("records")
    ]
    published = [str(origin) == PUBLISHED for origin in frame[ORIGIN]] if ORIGIN in frame else []
    return Grid(columns, rows, published)


def _cell(value: Any) -> Cell:
    if isinstance(value, str | bool):
        return value
    if value is None or pd.isna(value):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _figure(row: dict[Any, Any], column: str) -> Cell | Figure:
    value, low, high = (_cell(row[c]) for c in (column, f"{column}_low", f"{column}_high"))
    if not isinstance(value, float):
        return value
    ends = [end if isinstance(end, float) else None for end in (low, high)]
    return Figure(value, *ends)
