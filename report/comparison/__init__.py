"""Several runs side by side: tables with published figures beside ours, and charts of them.

``screened`` reads runs, ``estimates`` adds what their screenings do not say, ``skill``, ``steering``
and ``widths`` make the tables of ``tables``; ``charts`` is what the page shows beside them.
"""

from collections.abc import Sequence
from pathlib import Path

from ...core.progress import Reporter
from .table import ComparisonTable

__all__ = ["ComparisonTable", "compare"]


def compare(runs: Sequence[Path], reporter: Reporter | None = None) -> list[ComparisonTable]:
    """Compare screened runs, with published figures beside ours.

    What is estimated anew is kept in each run (``estimates.json``) that can be written to.

    Args:
        runs: run directories; rows come in their order.
        reporter: shows how far the estimates are; None: silent.

    Raises:
        InputError: one is no screened run of this format, or is given twice.

    """
    from .tables import compare_runs

    return compare_runs(runs, reporter)
