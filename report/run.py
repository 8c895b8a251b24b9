"""The pieces of a run directory that a report reads, as far as they are there."""

from functools import cached_property
from pathlib import Path

import pandas as pd

from ..core.layout import ALLOWLIST, FEATURES, LABELS, RANKING, SAMPLE
from ..core.records import Allowlist
from ..core.runs import RunDirectory
from ..predictor.model.targets import Scheme, primary_labels, scheme_for
from .concluded import read_screening


class Run:
    """The pieces of a run directory that a report reads, each read once, where it is there.

    Raises:
        InputError: there is no run, or a piece is damaged or of another format.

    """

    def __init__(self, path: Path) -> None:
        self.directory = RunDirectory.existing(path)
        self.setting = self.directory.setting()
        self.screening = read_screening(self.directory)
        self.features = self.read_table(FEATURES, "feature", "final_act_freq")
        needed = ("feature", "eligible", "final_act_freq", "predicted_clean_score")
        self.ranking = self.read_table(RANKING, *needed)
        self.labels = self.read_table(LABELS, "feature", "mode", "alpha", "context_type")

    def read_table(self, name: str, *columns: str) -> pd.DataFrame | None:
        """A table that must have the given columns; None where the run has no such table."""
        return self.directory.table(name, columns) if self.directory.has(name) else None

    def read_indexed(self, name: str) -> pd.DataFrame | None:
        """A table indexed by feature; None where the run has no such table."""
        table = self.read_table(name, "feature")
        return None if table is None else table.set_index("feature")

    @property
    def by_response(self) -> bool:
        """True where the setting labels no feature: linear response alone ranks them."""
        return self.setting.steering.ranked_by == "linear response"

    @property
    def scheme(self) -> Scheme:
        """Which labels make up the clean score and stand for the axes."""
        return scheme_for(self.setting.steering.collateral, self.setting.steering.mode)

    @cached_property
    def measured(self) -> pd.DataFrame | None:
        """The sample's labels in the setting's own mode and strength, indexed by feature; runs of
        earlier versions, which kept no sample, give all labels in that mode and strength.
        """
        if self.labels is None or self.by_response:
            return None
        steering = self.setting.steering
        same = self.labels["mode"] == steering.mode
        rows = self.labels[same & (self.labels["alpha"] == steering.strength)]
        sample = self.read_table(SAMPLE, "feature")
        if sample is not None:
            rows = rows[rows["feature"].isin(sample["feature"])]
        return None if rows.empty else primary_labels(rows, scheme=self.scheme)

    def allowed(self) -> list[int]:
        """The features of the run's allowlist."""
        if not self.directory.has(ALLOWLIST):
            return []
        return self.directory.read(ALLOWLIST, Allowlist).features
