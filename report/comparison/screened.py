"""Screened runs, as the comparison reads them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ...core.errors import InputError
from ...core.layout import RANDOM_DIRECTIONS, RANKING, SCREENING
from ...core.records import Controls, Screening
from ...core.runs import RunDirectory
from ...core.settings import Setting
from ...predictor.evidence.tables import LabelledTable, read_run, refuse_repeated
from ..concluded import read_screening

COUNT = "collateral_count_0.05"


@dataclass(frozen=True)
class ScreenedRun:
    """A run that ``cleansteer screen`` finished."""

    name: str
    """Its setting's, or its path where several runs are of settings of the same name."""
    setting: Setting
    screening: Screening
    controls: Controls
    table: LabelledTable
    """Statistics and labels of the labelled features."""
    random: pd.DataFrame
    """Labels of random directions, indexed by the feature whose place they take."""
    run: RunDirectory


def read_screened(path: Path) -> ScreenedRun:
    """Read a screened run.

    Raises:
        InputError: there is none, it is not finished, of another format version, lacks a
            table, or its labels are not those that it was screened with.

    """
    run = RunDirectory.existing(path)
    setting = run.setting()
    screening = read_screening(run)
    if screening is None:
        raise InputError(
            f"run {path} is not finished ({SCREENING} is missing), expected one that `cleansteer "
            f"screen` wrote; finish it: cleansteer screen SETTING --run {path}"
        )
    if screening.controls is None:
        raise without_labels(path)
    ranking = run.table(RANKING, ("feature", "measured"))
    # Features that were steered later are no part of what the screening says.
    table = read_run(path, ranking.loc[ranking["measured"], "feature"])
    if len(table.labels) != screening.n_labelled:
        raise InputError(
            f"run {path} was screened with {screening.n_labelled} labelled features and has "
            f"{len(table.labels)} now; screen it again (cleansteer screen SETTING --run {path})"
        )
    random = run.table(RANDOM_DIRECTIONS, ("feature", COUNT)).set_index("feature")
    return ScreenedRun(setting.name, setting, screening, screening.controls, table, random, run)


def without_labels(path: Path) -> InputError:
    """What is told of a run that labels no feature."""
    return InputError(
        f"run {path} is ranked by linear response, without labels, and the comparison is about labels; "
        "leave it out, or screen it with labels in another --run (--labels)"
    )


def read_all(paths: Sequence[Path]) -> list[ScreenedRun]:
    """Read several screened runs, each once, under names that tell them apart.

    Raises:
        InputError: as :func:`read_screened`, or one is given twice.

    """
    refuse_repeated(paths)
    runs = [read_screened(path) for path in paths]
    times = Counter(run.name for run in runs)
    return [
        replace(run, name=str(path)) if times[run.name] > 1 else run
        for path, run in zip(paths, runs, strict=True)
    ]
