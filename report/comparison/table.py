"""A table of the comparison, and how its cells are written."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import pandas as pd

ORIGIN = "origin"
"""Column that says whose figures a row holds: :data:`OURS` or :data:`PUBLISHED`."""
OURS, PUBLISHED = "ours", "published"
"""Measured in our runs, or on the paper's models by others."""
NOTHING = "-"
_DECIMALS = 3


@dataclass(frozen=True)
class ComparisonTable:
    """A table with a row a setting, or a setting and what is asked of it.

    Columns ``X_low`` and ``X_high`` are the ends of the 95 % interval of column ``X``. Missing
    figures are NaN, missing words None.
    """

    name: str
    title: str
    note: str
    """What the columns are, and the source of published rows."""
    frame: pd.DataFrame
    """With a column :data:`ORIGIN`."""

    def as_text(self) -> list[dict[str, str]]:
        """The rows as text by heading, figures rounded, an interval in the cell of its figure."""
        columns = [str(name) for name in self.frame]
        ends = {f"{name}_{end}" for name in columns for end in ("low", "high")}
        names = [name for name in columns if name not in ends]
        rows = self.frame.to_dict("records")
        return [{name: _write_cell(row, name) for name in names} for row in rows]


def _write_cell(row: Mapping[Hashable, object], name: str) -> str:
    text = write_value(row[name], name)
    low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
    if not isinstance(low, float) or pd.isna(low):
        return text
    return f"{text} [{write_value(low, name)}, {write_value(high, name)}]"


def write_value(value: object, name: str) -> str:
    """A value of column ``name`` as text: three decimals, p-values with one significant digit."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if name.startswith("p_"):
        return f"{value:.0e}"
    return f"{round(value, _DECIMALS) + 0.0:.{_DECIMALS}f}"  # no -0.000
