"""What a report shows, as plain records: figures with intervals, charts of them, tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cell = str | float | bool | None
"""A table's entry that has no interval."""


@dataclass(frozen=True)
class Figure:
    """A figure, with its interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Figure":
        """What a run's JSON says: ``value``, ``low`` and ``high``."""
        return cls(float(found["value"]), float(found["low"]), float(found["high"]))


@dataclass(frozen=True)
class Series:
    """One mark for each row of a panel; None where there is none."""

    name: str
    figures: Sequence[Figure | None]


@dataclass(frozen=True)
class Panel:
    """A chart: rows one below the other and figures along a common axis, or, where the rows have
    ``positions``, a line over them.
    """

    title: str
    axis: str
    rows: Sequence[str]
    series: Sequence[Series]
    reference: float | None = None
    """Where a line is drawn to compare with."""
    positions: Sequence[float] | None = None


@dataclass(frozen=True)
class Grid:
    """A table: headings, and rows of text, numbers, truths or figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | Figure]]
    published: Sequence[bool] = ()
    """For every row whether it is published by others and not measured by us; none where empty."""


@dataclass(frozen=True)
class Section:
    """A part of the story: what it says, as charts and as a table."""

    key: str
    title: str
    note: str
    panels: Sequence[Panel]
    table: Grid
