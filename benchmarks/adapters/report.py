"""From a setting to the experiment's tables, plot and page."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...core.progress import Reporter
from ...core.settings import Setting
from ...core.tables import write_table, write_text
from .design import Design
from .experiment import Experiment
from .plots import plot_frontiers
from .summary import means, read_all
from .telling import tell

POINTS, GAINS = "points.parquet", "gains.parquet"
RESULTS, PLOT = "results.md", "frontier.svg"


@dataclass(frozen=True)
class Compared:
    """What the experiment gave."""

    means: pd.DataFrame
    """Gains at equal cost (see :func:`.summary.means`)."""
    told: str
    """Tables and sentences, as Markdown."""
    files: list[Path]


def compare_adapters(
    setting: Setting, design: Design, out: Path, command: str, device: str, reporter: Reporter
) -> Compared:
    """Run the experiment, or go on with it, and write what it shows into ``out``.

    Args:
        setting: names model and SAEs.
        design: which adapters.
        out: an empty or new directory, or that of the same experiment.
        command: what the page says it was made by.
        device: where the model is put.
        reporter: shows how far it is.

    Raises:
        InputError: the directory holds another experiment, or a topic has too few texts.

    """
    points = Experiment(setting, design, out, device, reporter).points()
    read = read_all(points, design.budgets)
    told = f"Made by `{command}`.\n\n{tell(design, points, read)}\n![Frontiers]({PLOT})\n"
    write_table(out / POINTS, points)
    write_table(out / GAINS, read)
    plot_frontiers(design, points, out / PLOT)
    write_text(out / RESULTS, told)
    files = [out / name for name in (RESULTS, PLOT, POINTS, GAINS)]
    return Compared(means(read), told, files)
