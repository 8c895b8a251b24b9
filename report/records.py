"""What a report shows, as plain records: figures with intervals, charts of them, tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.records import Interval

Cell = str | float | bool | None
"""A table's entry that has no interval."""


@dataclass(frozen=True)
class Figure:
    """A figure, with its interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, interval: Interval) -> "Figure":
        """The figure of an interval."""
        return cls(interval.value, interval.low, interval.high)

    @property
    def above_zero(self) -> bool:
        """True where there is an interval, and all of it lies above zero."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True)
class ChartSeries:
    """One mark for each row of a chart; None where there is none."""

    name: str
    figures: Sequence[Figure | None]


@dataclass(frozen=True)
class ChartPanel:
    """A chart: rows one below the other and figures along a common axis, or, where the rows have
    ``positions``, a line over them.
    """

    title: str
    axis: str
    rows: Sequence[str]
    series: Sequence[ChartSeries]
    reference: float | None = None
    """Where a line is drawn to compare with."""
    positions: Sequence[float] | None = None
    linear: bool = False
    """Whether positions stand on a linear axis even where a logarithmic one would do."""


@dataclass(frozen=True)
class PageTable:
    """A table of the page: headings, and rows of text, numbers, truths or figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | Figure]]
    published: Sequence[bool] = ()
    """For every row whether others published it; empty where all rows were measured by us."""


@dataclass(frozen=True)
class ReportSection:
    """A part of the page: what it says, as charts and as a table."""

    key: str
    """Its id in the page."""
    title: str
    note: str
    panels: Sequence[ChartPanel]
    table: PageTable
    unfolded: bool = False
    """Whether the table is shown at once, and not only where it is opened."""
