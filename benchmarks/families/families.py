"""From settings and finished runs to tables in every format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.progress import Reporter
from ...core.runs import RunDirectory
from ...predictor.evidence.tables import refuse_repeated
from ...report.comparison import ComparisonTable, compare
from ...report.comparison.screened import read_all
from ...report.page import write_page
from .formats import STEM, write_tables


@dataclass(frozen=True)
class PlannedRun:
    """A run that takes part: a finished one, or one that is still to be screened."""

    path: Path
    name: str
    """Of its setting, for people."""
    screen: Callable[[], object] | None = None
    """Screens the run, from where it was left; None: it is finished."""


@dataclass(frozen=True)
class ComparedFamilies:
    """The tables, how they were made, and where they were written."""

    tables: list[ComparisonTable]
    heading: list[str]
    files: list[Path]


def compare_families(
    planned: Sequence[PlannedRun], out: Path, command: str, reporter: Reporter
) -> ComparedFamilies:
    """Screen the runs that are not finished, compare all, and write the tables and a page.

    Args:
        planned: the runs, in the order of the rows.
        out: folder for ``families.md``, ``.tex``, ``.csv``, ``.json`` and ``.html``.
        command: what the tables say they were made by.
        reporter: tells how far it is.

    Raises:
        InputError: a finished run cannot be read, or one is given twice; nothing is screened then.

    """
    paths = [run.path for run in planned]
    refuse_repeated(paths)
    read_all([run.path for run in planned if run.screen is None])
    for run in planned:
        if run.screen is not None:
            reporter.say(f"screening {run.name} in {run.path}")
            run.screen()
    tables = compare(paths, reporter)
    heading = _heading(paths, command)
    files = write_tables(tables, heading, out)
    page = out / f"{STEM}.html"
    write_page(paths, page, None, lambda: tables)
    return ComparedFamilies(tables, heading, [*files, page])


def _heading(paths: Sequence[Path], command: str) -> list[str]:
    """How the tables were made: the command, and when and by which version the runs were."""
    manifests = [RunDirectory.existing(path).manifest for path in paths]
    versions = sorted({manifest.versions["cleansteer"] for manifest in manifests})
    days = sorted(manifest.commands[-1].at[:10] for manifest in manifests)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return [f"Made by `{command}`.", f"Screened {when} with cleansteer {', '.join(versions)}."]
