"""The page: assets and data put into one HTML file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.layout import SCREENING
from ..core.progress import Reporter
from ..core.tables import write_text
from .bundle import bundle
from .comparison import ComparisonTable, compare, is_labelled
from .comparison.charts import NamedRun, comparison_sections, verdict_table
from .names import MEANINGS, NAMES
from .page_tables import page_table
from .records import PageTable, ReportSection
from .run import Run
from .story import Story, gather

SCRIPTS = (
    "text.js",
    "data.js",
    "tables.js",
    "charts.js",
    "sections.js",
    "selection.js",
    "points.js",
    "scatter.js",
    "order.js",
    "grid.js",
    "filters.js",
    "features.js",
    "story.js",
    "main.js",
    "shell.js",
)
"""In the order in which they are joined."""
BROWSABLE = 300_000
"""Most features of all runs together whose tables one page holds; runs beyond are only compared."""


@dataclass(frozen=True)
class FoldedTable:
    """A table that is opened by whoever wants it."""

    name: str
    title: str
    note: str
    table: PageTable


@dataclass(frozen=True)
class RunComparison:
    """What a page of several runs starts with."""

    verdicts: PageTable
    sections: Sequence[ReportSection]
    tables: Sequence[FoldedTable]


@dataclass(frozen=True)
class PageIndex:
    """What a page says of all its runs."""

    created: str
    """When, in UTC, ISO 8601."""
    names: Mapping[str, str]
    """Names of columns for people."""
    meanings: Mapping[str, str]
    """Their meanings, in a line."""
    runs: Sequence[str]
    """Names of the runs that the page holds whole."""
    left_out: Sequence[str]
    """Names of the runs that are only compared."""
    comparison: RunComparison | None
    """None for one run."""


def write_report(
    runs: Sequence[Path],
    out: Path,
    descriptions: str | Path | None = None,
    comparison: bool = True,
    reporter: Reporter | None = None,
) -> None:
    """Write the report of one run, or of several side by side.

    Args:
        runs: run directories.
        out: the HTML file.
        descriptions: where descriptions of the features of the one run are (see
            :func:`naming.source.read_descriptions`).
        comparison: of several runs, compare those that are screened with labels, see
            :func:`comparison.compare`.
        reporter: shows how far the comparison is, and what of the descriptions is of no use; None:
            silent.

    Raises:
        InputError: a run, or the descriptions, cannot be read.

    """

    def tables() -> Sequence[ComparisonTable]:
        screened = [run for run in runs if (run / SCREENING).is_file() and is_labelled(run)]
        return compare(screened, reporter) if comparison and screened else []

    write_page(runs, out, descriptions, tables, reporter)


def write_page(
    runs: Sequence[Path],
    out: Path,
    descriptions: str | Path | None,
    tables: Callable[[], Sequence[ComparisonTable]],
    reporter: Reporter | None = None,
) -> None:
    """:func:`write_report` with the tables of a comparison, which ``tables`` makes once the runs are
    known to be right; it is not called for one run.
    """
    if descriptions is not None and len(runs) > 1:
        raise InputError(
            f"--descriptions {descriptions} describes the features of one SAE, and {len(runs)} runs are "
            "given; give one run, or leave --descriptions out"
        )
    opened = name_runs([Run(path) for path in runs])
    n_browsable = count_browsable([named.run for named in opened])
    names = [named.name for named in opened]
    stories = [
        gather(named.run, descriptions, named.name, reporter) for named in opened[:n_browsable]
    ]
    index = PageIndex(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        names=NAMES,
        meanings=MEANINGS,
        runs=names[:n_browsable],
        left_out=names[n_browsable:],
        comparison=_compare(opened, tables()) if len(opened) > 1 else None,
    )
    write_text(out, assemble(index, stories))


def count_browsable(runs: Sequence[Run]) -> int:
    """How many of the runs, from the first, a page holds whole: one at least."""
    sizes = np.cumsum([0 if run.features is None else len(run.features) for run in runs])
    return max(1, int((sizes <= BROWSABLE).sum()))


def _compare(runs: Sequence[NamedRun], tables: Sequence[ComparisonTable]) -> RunComparison:
    return RunComparison(
        verdicts=verdict_table(runs),
        sections=comparison_sections(runs),
        tables=[FoldedTable(t.name, t.title, t.note, page_table(t)) for t in tables],
    )


def name_runs(runs: Sequence[Run]) -> list[NamedRun]:
    """Runs by their settings' names; with the directory where several are of one setting."""
    names = [run.setting.name for run in runs]
    return [
        NamedRun(name if names.count(name) == 1 else f"{name} ({run.directory.path})", run)
        for name, run in zip(names, runs, strict=True)
    ]


def assemble(index: PageIndex, stories: Iterable[Story]) -> str:
    """The HTML of some runs' stories and of what is to be said of all."""
    return bundle(SCRIPTS, index, stories)
