"""Tables of a comparison as the page shows them."""

import math
from collections.abc import Hashable, Mapping
from numbers import Real

from .comparison.table import ORIGIN, PUBLISHED, ComparisonTable
from .records import Cell, Figure, PageTable


def page_table(table: ComparisonTable) -> PageTable:
    """A comparison's table: columns ``x``, ``x_low`` and ``x_high`` become one with an interval, and
    ``origin`` becomes a mark.
    """
    frame = table.frame
    ends = [c for c in frame if f"{c}_low" in frame and f"{c}_high" in frame]
    hidden = {ORIGIN, *(f"{c}_{end}" for c in ends for end in ("low", "high"))}
    columns = [str(c) for c in frame.columns if c not in hidden]
    rows: list[list[Cell | Figure]] = [
        [_figure(row, column) if column in ends else _cell(row[column]) for column in columns]
        for row in frame.to_dict("records")
    ]
    published = [origin == PUBLISHED for origin in frame[ORIGIN]] if ORIGIN in frame else []
    return PageTable(columns, rows, published)


def _cell(value: object) -> Cell:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Real):
        number = float(value)
        return None if math.isnan(number) else number
    return str(value)


def _figure(row: Mapping[Hashable, object], column: str) -> Cell | Figure:
    value, low, high = (_cell(row[c]) for c in (column, f"{column}_low", f"{column}_high"))
    if not isinstance(value, float):
        return value
    ends = [end if isinstance(end, float) else None for end in (low, high)]
    return Figure(value, *ends)
