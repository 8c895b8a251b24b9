"""The pieces of a run directory that a report reads, as far as they are there."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ..core.errors import InputError
from ..core.runs import RunDirectory
from ..core.settings import Setting
from ..predictor.targets import primary_labels
from ..study.catalogue import bundled
from ..core.layout import ALLOWLIST, DOSES, FEATURES, LABELS, RANKING, SCREENING
from ..study.screening import read_screening
from .doses import dose_section
from .records import Section

PRIMARY_CONTEXTS = "mixed"
T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """What a run does not hold yet, and the command that makes it."""

    what: str
    command: str


class Run:
    """The pieces of a run directory that a report reads, each read once, where it is there."""

    def __init__(self, path: Path) -> None:
        self.directory = RunDirectory.existing(path)
        self.setting: Setting = self.directory.setting()
        self.screening = self._screening()
        self.features = self._table(FEATURES, ("feature", "final_act_freq"))
        needed = ("feature", "eligible", "final_act_freq", "predicted_clean_score")
        self.ranking = self._table(RANKING, needed)
        self.labels = self._table(LABELS, ("feature", "mode", "alpha", "context_type"))

    @property
    def manifest(self) -> dict[str, Any]:
        return self.directory.manifest

    def _table(self, name: str, columns: tuple[str, ...] = ()) -> pd.DataFrame | None:
        return self.directory.table(name, columns) if self.directory.has(name) else None

    def _screening(self) -> dict[str, Any] | None:
        if not self.directory.has(SCREENING):
            return None
        return read_screening(self.directory)

    def from_screening(self, what: Callable[[dict[str, Any]], T]) -> T:
        """What ``what`` makes of screening.json.

        Raises:
            InputError: an entry is missing there, or is of another kind.

        """
        assert self.screening is not None
        try:
            return what(self.screening)
        except (LookupError, TypeError, AttributeError, StopIteration) as error:
            raise InputError(
                f"{self.directory.path / SCREENING} lacks an entry that every screening has "
                f"({type(error).__name__}: {error}); screen anew"
            ) from None

    @cached_property
    def measured(self) -> pd.DataFrame | None:
        """The labels in the setting's own mode and strength, indexed by feature."""
        if self.labels is None:
            return None
        steering = self.setting.steering
        same = self.labels["mode"] == steering.mode
        rows = self.labels[same & (self.labels["alpha"] == steering.alpha)]
        return None if rows.empty else primary_labels(rows)

    def table(self, name: str) -> pd.DataFrame | None:
        """A table indexed by feature."""
        found = self._table(name, ("feature",))
        return None if found is None else found.set_index("feature")

    def doses(self) -> Section | None:
        """The dose-response, where several strengths were tried."""
        if self.labels is None:
            return None
        recommended = self._table(DOSES, ("feature", "recommended_alpha", "kl_budget"))
        return dose_section(self.labels, recommended, PRIMARY_CONTEXTS, self.setting.seed)

    def allowed(self) -> list[int]:
        """The features of the run's allowlist."""
        if not self.directory.has(ALLOWLIST):
            return []
        listed = self.directory.json(ALLOWLIST).get("features", [])
        return [f for f in listed if isinstance(f, int)] if isinstance(listed, list) else []

    def missing(self) -> list[Missing]:
        """What there is not, with the command that goes on with the run."""
        name = self.setting.name if self.setting.name in bundled() else f"{self.setting.name}.toml"
        where = f"--run {shlex.quote(str(self.directory.path))}"
        screen = f"cleansteer screen {shlex.quote(name)} {where}"
        if self.features is None:
            text = "This run holds no statistics yet: there is nothing to show of its features."
        elif self.labels is None and self.ranking is not None:
            text = (
                "No feature of this run was steered: the ranking comes from a predictor that was fitted "
                "on other settings, there is nothing measured to check it with, and no verdict."
            )
        elif self.labels is None:
            text = (
                "No feature of this run was steered yet: there are statistics, but no labels, no "
                "ranking and no verdict."
            )
        elif self.screening is None:
            text = (
                "This run is not screened to its end: there are labels, but no fresh check, no verdict "
                "and no allowlist."
            )
        else:
            return []
        return [Missing(text, screen)]
