"""``Pipeline``, as a study was called: its old method names, for one release."""

import warnings
from pathlib import Path

import pandas as pd

from ..core.progress import Reporter
from ..core.records import Allowlist, Screening, Skill
from ..core.runs import RunDirectory
from ..core.settings import Setting
from .allowing import DEFAULT_TOP
from .inputs import Inputs
from .study import Study


class Pipeline:
    """A :class:`~cleansteer.study.study.Study` under its old names."""

    def __init__(
        self, setting: Setting, run: RunDirectory, reporter: Reporter, device: str = "cpu"
    ) -> None:
        warnings.warn(
            "Pipeline is cleansteer.Study now, made by cleansteer.screen, open_study or load_study; "
            "this name goes in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        self.setting = setting
        self.run = run
        self._study = Study(setting, run, Inputs(setting, device), reporter)

    def features(self) -> pd.DataFrame:
        """Now ``Study.features``."""
        return self._study.features

    def labels(self) -> pd.DataFrame:
        """Now ``Study.labels``."""
        return self._study.labels

    def fit(self) -> dict[str, Skill]:
        """Now ``Study.fit``."""
        return self._study.fit()

    def rank(self) -> pd.DataFrame:
        """Now ``Study.rank``."""
        return self._study.rank()

    def screen(self, top: int = DEFAULT_TOP) -> Screening:
        """Now ``Study.screen``."""
        return self._study.screen(top).screening

    def allowlist(
        self, top: int | None = None, min_score: float | None = None, path: Path | None = None
    ) -> tuple[Allowlist, Path]:
        """Now ``Study.allowlist``."""
        made = self._study.allowlist(top, min_score)
        return made, made.save(path or self._study.path / "allowlist.json")
