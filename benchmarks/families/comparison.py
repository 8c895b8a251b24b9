"""The comparison: finished runs in, tables out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...predictor.tables import refuse_repeated
from .estimates import estimates_of
from .figures import Compared
from .screened import Screened, read_screened
from .skill import residualised, skill, strongest
from .steering import crowding, fresh, reliability, settings, verdicts
from .table import Table
from .widths import widths


def read_all(paths: Sequence[Path]) -> list[Screened]:
    """Several finished runs, each once, under names that tell them apart.

    Raises:
        InputError: one is no finished run of this format, or is given twice.

    """
    refuse_repeated(paths)
    runs = [read_screened(path) for path in paths]
    times = Counter(run.name for run in runs)
    return [
        replace(run, name=str(path)) if times[run.name] > 1 else run
        for path, run in zip(paths, runs, strict=True)
    ]


def compare(runs: Sequence[Path], tick: Callable[[int], object] = lambda _: None) -> list[Table]:
    """Tables over finished runs, with published figures beside ours.

    What is estimated anew is kept in each run (``estimates.json``) that can be written to.

    Args:
        runs: run directories; rows come in their order.
        tick: called with 1 after each run's estimates.

    Raises:
        InputError: as :func:`read_all`.

    """
    compared = []
    for run in read_all(runs):
        compared.append(Compared(run, estimates_of(run)))
        tick(1)
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
