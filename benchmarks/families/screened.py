"""Finished runs, as the comparison reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...core.errors import InputError
from ...core.runs import RunDirectory
from ...core.settings import Setting
from ...predictor.tables import LabelledTable, read_run
from ...core.layout import RANDOM_DIRECTIONS, RANKING, SCREENING
from ...study.screening import read_screening

COUNT = "collateral_count_0.05"


@dataclass(frozen=True)
class Screened:
    """A run that ``cleansteer screen`` finished."""

    name: str
    """Its setting's, or its path where several runs are of settings of the same name."""
    setting: Setting
    screening: dict[str, Any]
    table: LabelledTable
    """Statistics and labels of the labelled features."""
    random: pd.DataFrame
    """Labels of random directions, indexed by the feature whose place they take."""
    run: RunDirectory


def read_screened(path: Path) -> Screened:
    """A finished run.

    Raises:
        InputError: there is none, it is not finished, of another format version, lacks a
            table, or its labels are not those that it was screened with.

    """
    run = RunDirectory.existing(path)
    setting = run.setting()
    if not run.has(SCREENING):
        raise InputError(
            f"run {path} is not finished ({SCREENING} is missing), expected one that `cleansteer "
            f"screen` wrote; finish it: cleansteer screen SETTING --run {path}"
        )
    screening = read_screening(run)
    ranking = run.table(RANKING, ("feature", "measured"))
    # Features that were steered later are no part of what the screening says.
    table = read_run(path, ranking.loc[ranking["measured"], "feature"])
    if len(table.labels) != screening["n_labelled"]:
        raise InputError(
            f"run {path} was screened with {screening['n_labelled']} labelled features and has "
            f"{len(table.labels)} now; screen it again (cleansteer screen SETTING --run {path})"
        )
    random = run.table(RANDOM_DIRECTIONS, ("feature", COUNT)).set_index("feature")
    return Screened(setting.name, setting, screening, table, random, run)
