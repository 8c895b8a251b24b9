"""Several runs side by side: tables with published figures beside ours, and charts of them.

``screened`` reads runs, ``estimates`` adds what their screenings do not say, ``skill``, ``steering``
and ``widths`` make the tables of ``tables``; ``charts`` is what the page shows beside them.
"""

from collections.abc import Sequence
from pathlib import Path

from ...core.progress import Reporter
from ...core.runs import RunDirectory
from .table import ComparisonTable

__all__ = ["ComparisonTable", "compare", "is_labelled"]


def is_labelled(run: Path) -> bool:
    """Whether the run's setting labels features, which the comparison is about.

    Raises:
        InputError: the directory holds no run.

    """
    return RunDirectory.existing(run).setting().steering.n_features != 0


def compare(runs: Sequence[Path], reporter: Reporter | None = None) -> list[ComparisonTable]:
    """Compare screened runs, with published figures beside ours.

    What is estimated anew is kept in each run (``estimates.json``) that can be written to.

    Args:
        runs: run directories; rows come in their order.
        reporter: shows how far the estimates are; None: silent.

    Raises:
        InputError: one is no screened run of this format, was screened without labels, or is given
            twice.

    """
    from .tables import compare_runs

    return compare_runs(runs, reporter)
