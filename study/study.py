"""A study: one setting's features, from their statistics to a verdict and an allowlist."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pandas as pd

from ..core.caller import called_as, spell_call
from ..core.choices import By, ContextType, Mode
from ..core.errors import InputError
from ..core.layout import (
    ALLOWLIST,
    DOSE_FORECAST,
    FRESH_LABELS,
    PREDICTOR,
    RANKING,
    REPORT,
    SCREENING,
)
from ..core.progress import Reporter
from ..core.records import Allowlist, Screening, Skill, Verdict
from ..core.runs import RunDirectory
from ..core.settings import Setting
from ..predictor.model import ModularityPredictor, load
from ..steering_eval.doses import DEFAULT_BUDGET
from .allowing import DEFAULT_TOP, allow
from .conclusion import conclude
from .dosing import DEFAULT_LABELS
from .evaluating import evaluate
from .forecasting import forecast_doses
from .inputs import Inputs
from .parts import Parts
from .request import check_by, check_top


class Study:
    """One setting's features: statistics, labels, ranking, verdict.

    Made by :func:`cleansteer.screen`, :func:`cleansteer.open_study` and
    :func:`cleansteer.load_study`. Tables are pandas DataFrames with the columns of
    docs/protocol.md; what has been measured once is read back from the study's directory.
    """

    def __init__(
        self,
        setting: Setting,
        run: RunDirectory,
        inputs: Inputs,
        reporter: Reporter,
        temporary: "TemporaryDirectory[str] | None" = None,
    ) -> None:
        self.setting = setting
        self._run, self._reporter = run, reporter
        self._temporary = temporary  # goes with this object
        self._parts = Parts.of(setting, run, inputs, reporter)

    @property
    def path(self) -> Path:
        """The study's directory; a temporary one where it was opened without ``run``."""
        return self._run.path

    @property
    def features(self) -> pd.DataFrame:
        """Statistics: a row for every feature of the dictionary; measured where they are missing."""
        return self._parts.response.table()

    def measure_features(self) -> pd.DataFrame:
        """Measure the statistics of every feature, where they are missing, and return them."""
        table = self.features
        self._record(spell_call("Study.measure_features"))
        return table

    def _record(self, call: str) -> None:
        with called_as(call):
            self._run.record_call()

    @property
    def labels(self) -> pd.DataFrame:
        """Labels of the setting's sample, a row per feature and context type; measured if missing."""
        return self._parts.labelling.labels().reset_index(drop=True)

    @property
    def sample(self) -> list[int]:
        """The features that the setting labels, in rising order."""
        return [int(feature) for feature in self._parts.labelling.sample()]

    @property
    def ranking(self) -> pd.DataFrame:
        """Every feature by falling predicted clean score, with 90 % intervals and reasons.

        Raises:
            InputError: nothing is ranked yet.

        """
        self._need(RANKING, "ranked")
        return self._run.table(RANKING, ("feature", "eligible", "predicted_clean_score"))

    @property
    def fresh_labels(self) -> pd.DataFrame:
        """Labels on fresh contexts, of the features of the fresh check.

        Raises:
            InputError: the study is not screened yet.

        """
        self._need(FRESH_LABELS, "screened")
        return self._run.table(FRESH_LABELS, ("feature", "n_contexts"))

    @property
    def screening(self) -> Screening:
        """Everything that the screening concluded: skill, fresh check, controls, verdict.

        Raises:
            InputError: the study is not screened yet, or its record is of another setting.

        """
        self._need(SCREENING, "screened")
        return self._run.screening()

    @property
    def screened(self) -> bool:
        """True once the study has a verdict."""
        return self._run.has(SCREENING)

    @property
    def verdict(self) -> Verdict:
        """How far the ranking can be trusted, by axis and with reasons.

        Raises:
            InputError: the study is not screened yet.

        """
        return self.screening.trust

    def _need(self, name: str, done: str, call: str = "screen() (cleansteer screen)") -> None:
        if not self._run.has(name):
            raise InputError(
                f"study {self.setting.name!r} in {self.path} is not {done} yet; call its {call}"
            )

    def screen(self, top: int = DEFAULT_TOP) -> Self:
        """Everything: statistics, labels of a sample, fit, rank, fresh check, allowlist, report.

        Args:
            top: how many features the allowlist takes; all eligible ones where there are fewer.

        Raises:
            InputError: something that the setting names cannot be used, or too few features can be
                labelled.

        """
        check_top(top)
        with called_as(spell_call("Study.screen", top=top)):
            screening, ranking = conclude(self._parts)
            self._run.write_table(RANKING, ranking)
            self._run.write(SCREENING, screening)
            self.allowlist(top=min(top, screening.n_eligible)).save(self.path / ALLOWLIST)
            self._run.record_call()
        self.report()
        return self

    def evaluate(
        self,
        features: Sequence[int] | None = None,
        *,
        sample: int | None = None,
        everything: bool = False,
        mode: Mode | None = None,
        alpha: float | Sequence[float] | None = None,
        kl_budget: float | None = None,
        target_kl: float | None = None,
        contexts: ContextType = "mixed",
    ) -> pd.DataFrame:
        """Steer features and measure stability and collateral spread.

        The labels of all context types are kept in labels.parquet, but only the setting's own
        sample enters predictor, ranking and verdict.

        Args:
            features: indices; None: the setting's own sample.
            sample: the first so many of the setting's sample, in place of ``features``.
            everything: every feature of the dictionary, in place of ``features``.
            mode: of steering; None: the setting's.
            alpha: strength of mode ``add`` in the setting's units, or several, which give a row each and
                a recommended coefficient for every feature; None: the setting's.
            kl_budget: with several strengths: recommend the largest coefficient whose KL from the clean
                predictions stays within this many nats (default 0.1).
            target_kl: KL in nats that mode ``matched`` brings features to (0.05); means that mode.
            contexts: which context types to return.

        Raises:
            InputError: a feature is not in the dictionary, or arguments do not go together.

        """
        asked = (features, sample, everything, mode, alpha, kl_budget, target_kl, contexts)
        table = evaluate(self._parts, *asked)
        self._record(spell_call("Study.evaluate", features, alpha=alpha))
        return table

    def dose_forecast(
        self,
        alpha: float | Sequence[float] | None = None,
        *,
        kl_budget: float = DEFAULT_BUDGET,
        labels: int = DEFAULT_LABELS,
    ) -> pd.DataFrame:
        """Forecast KL, stability and collateral of every feature at any strength, with 90 % intervals:
        a row for every feature and strength.

        Linear response, corrected on measured doses of a few features (docs/protocol.md, Dose forecast);
        forecasts that do not hold are NaN. :attr:`recommended_doses` keeps how far each holds.

        Args:
            alpha: strengths in the setting's units, with its sign; None: those that are measured.
            kl_budget: of KL from the clean predictions, in nats.
            labels: how many features of the setting's sample are steered at every dose.

        Raises:
            InputError: the setting asks for no linear response or steers by another mode than ``add``,
                or an argument is wrong.

        """
        table = forecast_doses(self._parts, alpha, kl_budget, labels)
        self._record(spell_call("Study.dose_forecast", alpha=alpha))
        return table

    @property
    def recommended_doses(self) -> pd.DataFrame:
        """Of the last dose forecast, for every feature: how far it holds, and the largest coefficient
        whose KL stays within the budget, or the reason why there is none.

        Raises:
            InputError: no dose was forecast yet.

        """
        self._need(DOSE_FORECAST, "forecast", "dose_forecast() (cleansteer doses)")
        return self._run.table(DOSE_FORECAST, ("feature", "recommended_coefficient", "reason"))

    def fit(self) -> dict[str, Skill]:
        """Fit the predictor on the sample's labels and save it; returns its out-of-fold skill."""
        _, skills = self._parts.prediction.fit()
        self._record(spell_call("Study.fit"))
        return skills

    def rank(
        self, predictor: "ModularityPredictor | str | PathLike[str] | None" = None
    ) -> pd.DataFrame:
        """Rank every feature by predicted clean score, and keep the ranking.

        Args:
            predictor: one that was fitted on several other runs, or its directory; this study needs
                no labels then. None: fit on this study's own.

        Raises:
            InputError: the study is screened, and the ranking would be another than the one that its
                verdict is about; or the predictor cannot rank other settings.

        """
        call = spell_call("Study.rank", predictor=predictor)
        if isinstance(predictor, str | PathLike):
            predictor = load(Path(predictor))
        ranks = self._parts.prediction
        ranking = ranks.rank_anew() if predictor is None else ranks.rank_by(predictor)
        self._record(call)
        return ranking

    def allowlist(
        self,
        top: int | None = None,
        min_score: float | None = None,
        *,
        by: By = "clean",
        min_stability: float | None = None,
        max_collateral_per_effect: float | None = None,
    ) -> Allowlist:
        """The cleanest eligible features.

        Args:
            top: how many; the 100 that a screening takes where nothing says so.
            min_score: all with at least this predicted clean score, in place of ``top``.
            by: what is cleanest: the predicted clean score (``clean``), one axis (``stability``,
                ``collateral``), or the worse of a feature's percentiles on the two (``both``).
            min_stability: only features whose 90 % interval of predicted stability_abs lies above.
            max_collateral_per_effect: only features whose 90 % interval of predicted
                collateral_per_effect lies below.

        Raises:
            InputError: the study is not screened, no feature qualifies, or too much is asked for.

        """
        check_by(by)
        screening, ranking, manifest = self.screening, self.ranking, self._run.manifest
        floors = (min_stability, max_collateral_per_effect)
        return allow(self.setting, manifest, ranking, screening, top, min_score, by, *floors)

    def report(
        self,
        out: "str | PathLike[str] | None" = None,
        descriptions: "str | PathLike[str] | None" = None,
    ) -> Path:
        """Write the study as one HTML file that needs no network; returns where.

        Args:
            out: the file; None: report.html in the study's directory.
            descriptions: descriptions of the features: .csv with the columns index and description,
                .jsonl with these keys, a directory of Neuronpedia's export, or ``neuronpedia``: its API.

        Raises:
            InputError: the descriptions cannot be read, or ``out`` cannot be written to.

        """
        from ..report import write_report

        target = self.path / REPORT if out is None else Path(out)
        named = None if descriptions is None else fspath(descriptions)
        write_report([self.path], target, named, reporter=self._reporter)
        return target

    def save(self, path: "str | PathLike[str]") -> Path:
        """Copy the study's directory, for :func:`cleansteer.load_study`; returns where.

        Raises:
            InputError: something lies there already.

        """
        return self._run.copy_to(Path(path))

    @property
    def predictor(self) -> ModularityPredictor:
        """The fitted predictor.

        Raises:
            InputError: none was fitted yet.

        """
        return load(self.path / PREDICTOR)

    def __repr__(self) -> str:
        sae = self.setting.sae.label
        state = self.verdict.overall if self.screened else "not screened"
        return f"Study {self.setting.name!r} of {sae} in {self.path} ({state})"

    def _repr_html_(self) -> str:
        from .notebook import study_html

        return study_html(self)
