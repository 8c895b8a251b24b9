"""Rows of the comparison: of our runs and of published settings, and what they have in common."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ...core.records import Interval, Screening
from ...predictor.model.targets import ABSOLUTE, Scheme, scheme_for
from ..records import Cell
from .estimates import Estimates
from .screened import ScreenedRun
from .table import ORIGIN, OURS, PUBLISHED

Row = dict[str, Cell]
MEAN = "mean"
"""In the column ``setting``: the mean over our runs; published figures are never in it."""


@dataclass(frozen=True)
class ComparedRun:
    """A screened run with its estimates."""

    screened: ScreenedRun
    estimates: Estimates

    @property
    def name(self) -> str:
        """What the run is called in the tables."""
        return self.screened.name

    @property
    def screening(self) -> Screening:
        """What the screening concluded."""
        return self.screened.screening

    @property
    def scheme(self) -> Scheme:
        """Which labels stand for the axes."""
        return scheme_for(self.screening.collateral, self.screening.mode)

    def row(self, values: Mapping[str, Cell]) -> Row:
        """A row of this run."""
        return {"setting": self.name, ORIGIN: OURS, **values}


def targets_among(runs: Sequence[ComparedRun]) -> list[str]:
    """The targets of all runs and of what is published."""
    schemes = (ABSOLUTE, *(run.scheme for run in runs))
    return list(dict.fromkeys(target for scheme in schemes for target in scheme.targets))


def axes_among(runs: Sequence[ComparedRun]) -> list[tuple[str, str]]:
    """Axis and label of all runs."""
    return list(dict.fromkeys(pair for run in runs for pair in run.scheme.axes.items()))


def published_row(setting: str, values: Mapping[str, Cell]) -> Row:
    """A row of a published setting."""
    return {"setting": setting, ORIGIN: PUBLISHED, **values}


def interval(name: str, figure: Interval | None) -> Row:
    """Columns of a figure and the ends of its interval; none where there is no figure."""
    if figure is None:
        return {}
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def intervals(figures: Mapping[str, Interval | None]) -> Row:
    """:func:`interval` of several figures, by name."""
    return {key: v for name, figure in figures.items() for key, v in interval(name, figure).items()}


def mean_row(rows: Sequence[Row], names: Iterable[str]) -> list[Row]:
    """The mean of our rows' figures, without an interval; no row where there are less than two."""
    if len(rows) < 2:
        return []
    means: Row = {"setting": MEAN, ORIGIN: OURS}
    for name in names:
        figures = [figure for row in rows if isinstance(figure := row.get(name), float)]
        if len(figures) == len(rows):
            means[name] = math.fsum(figures) / len(rows)
    return [means]


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
