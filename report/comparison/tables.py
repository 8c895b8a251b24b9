"""The comparison: screened runs in, tables out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ...core.progress import Reporter
from .estimates import estimates_of
from .rows import ComparedRun
from .screened import read_all
from .skill import residualised, skill, strongest
from .steering import crowding, fresh, reliability, settings, verdicts
from .table import ComparisonTable
from .widths import widths


def compare_runs(runs: Sequence[Path], reporter: Reporter | None = None) -> list[ComparisonTable]:
    """What :func:`comparison.compare` gives."""
    screened = read_all(runs)  # what is wrong is told before the bar
    compared = []
    with _bar(reporter, len(screened)) as advance:
        for run in screened:
            compared.append(ComparedRun(run, estimates_of(run)))
            advance(1)
    tables = [
        verdicts(compared),
        settings(compared),
        skill(compared),
        *residualised(compared),
        strongest(compared),
        fresh(compared),
        reliability(compared),
        crowding(compared),
        widths(compared),
    ]
    return [table for table in tables if len(table.frame)]


def _bar(reporter: Reporter | None, total: int) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda _: None) if reporter is None else reporter.bar("comparison", total)
