"""The main road: what is measured, predictor, fresh check, ranking, allowlist."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.tables import write_json
from ..predictor.controls import (
    against_random_directions,
    reliability,
    residual_space,
    without_dense_panel,
)
from ..predictor.files import save
from ..predictor.models import ModularityPredictor
from ..predictor.ranking import make_allowlist, rank_by_others, rank_features
from ..predictor.screening import (
    LEAST_LABELLED,
    check_enough,
    choose_groups,
    compare_groups,
)
from ..predictor.sets import predictor_sets
from ..predictor.targets import primary_labels
from ..predictor.trust import trust
from ..predictor.validation import Skill, validate
from ..steering_eval.choice import eligible_features
from ..core.layout import ALLOWLIST, PREDICTOR, RANKING, SCREENING, SCREENING_FORMAT
from .inputs import CONTEXTS, FRESH_CONTEXTS
from .labelling import RELIABILITY, Measurements
from .source import allowlist_source

DEFAULT_TOP = 100


class Pipeline(Measurements):
    """All stages of a run: its measurements, and what is made of them."""

    def _labelled(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Statistics and labels of the labelled features, row by row."""
        labels = primary_labels(self.labels())
        statistics = self.features().set_index("feature")
        names = predictor_sets(statistics.columns)["full_all"]
        return statistics.loc[labels.index, names], labels

    def fit(self) -> tuple[ModularityPredictor, dict[str, Skill]]:
        """Fit the predictor on all labels, cross-validate it, and save it."""
        statistics, labels = self._labelled()
        seed = self.setting.seed
        predictor = ModularityPredictor(seed=seed, least_labelled=LEAST_LABELLED)
        with (
            self.run.timed("fit"),
            self._reporter.bar("predictor", predictor.n_fits) as progress,
        ):
            predictor.fit(statistics, labels, tick=lambda: progress(1))
            skills = validate(statistics, labels, {seed: predictor.out_of_fold_})
        save(predictor, self.run.path / PREDICTOR)
        return predictor, skills

    def rank(self) -> pd.DataFrame:
        """Fit, and rank every feature of the dictionary."""
        statistics = self.features()
        predictor, _ = self.fit()
        return self._write_ranking(statistics, predictor)

    def rank_by(self, predictor: ModularityPredictor) -> pd.DataFrame:
        """Rank every feature by a predictor that was fitted on other settings.

        Raises:
            InputError: it was fitted on one setting's own values, or this run is screened: its
                verdict would stand beside another ranking than it is about.

        """
        if self.run.has(SCREENING):
            raise InputError(
                f"run {self.run.path} is screened, and its verdict is about its own ranking; rank by "
                "another predictor in another --run (cleansteer features SETTING --run DIR)"
            )
        statistics = self.features()
        eligible = set(eligible_features(statistics).tolist())
        ranking = rank_by_others(statistics, predictor, eligible)
        self.run.write_table(RANKING, ranking)
        return ranking

    def _write_ranking(
        self, statistics: pd.DataFrame, predictor: ModularityPredictor
    ) -> pd.DataFrame:
        _, labels = self._labelled()
        eligible = set(eligible_features(statistics).tolist())
        ranking = rank_features(statistics, labels, predictor, eligible)
        self.run.write_table(RANKING, ranking)
        return ranking

    def controls(self) -> dict[str, Any]:
        """Reliability of the labels, random directions, dense panel features, residual space."""
        labels = primary_labels(self.labels())
        panel, seed = self.panel(), self.setting.seed
        statistics = self.features().set_index("feature")
        return {
            "reliability": reliability(*self.halves(), seed),
            "random_directions": against_random_directions(
                labels, self.random_directions(), statistics, seed
            ),
            "dense_panel": without_dense_panel(labels, len(panel.dense), int(panel.dense.sum())),
            "residual_space": residual_space(labels),
        }

    def screen(self, top: int = DEFAULT_TOP) -> dict[str, Any]:
        """Everything; returns what ``screening.json`` holds."""
        check_enough(self.setting.steering.n_features)
        self.prepare(CONTEXTS, FRESH_CONTEXTS)
        features = self.features()
        check_enough(len(self.first_round()))
        statistics, labels = self._labelled()
        groups = choose_groups(statistics, labels, self.setting.seed)
        predictor, skills = self.fit()
        steered = np.concatenate(list(groups.features.values()))
        check = compare_groups(groups, self.fresh_labels(steered), self.setting.seed)
        ranking = self._write_ranking(features, predictor)
        screening = {
            "format": SCREENING_FORMAT,
            "setting": self.setting.name,
            "setting_fingerprint": self.setting.fingerprint,
            "n_features": len(features),
            "n_eligible": int(ranking["eligible"].sum()),
            "n_labelled": len(labels),
            "mode": self.setting.steering.mode,
            "coefficient": float(labels["coefficient"].median()),
            "mean_l0": self.run.manifest["mean_l0"],
            "skill": {target: skill.to_json() for target, skill in skills.items()},
            "fresh_check": check.to_json(),
            "controls": self.controls(),
            "self_check": self.run.manifest["evaluator"],
            "warnings": self.run.manifest.get("warnings", []),
            "trust": trust(skills, check),
        }
        if self.setting.steering.reliability is not None:
            screening[RELIABILITY] = self.run.manifest[RELIABILITY]
        self.run.write_json(SCREENING, screening)
        self.allowlist(top=min(top, int(ranking["eligible"].sum())))
        self.run.record_command()
        return screening

    def allowlist(
        self, top: int | None = None, min_score: float | None = None, path: Path | None = None
    ) -> tuple[dict[str, Any], Path]:
        """Write an allowlist of the best eligible features of a screened run.

        Raises:
            InputError: the run is not screened, or no feature qualifies.

        """
        ranking = self.run.table(RANKING, ("feature", "eligible", "predicted_clean_score"))
        verdict = self.run.json(SCREENING)["trust"]
        allowlist = make_allowlist(
            ranking,
            **allowlist_source(self.setting, self.run.manifest),
            trust=verdict,
            top=top,
            min_score=min_score,
        )
        path = path or self.run.path / ALLOWLIST
        write_json(path, allowlist)
        return allowlist, path
