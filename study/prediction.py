"""From labels to a ranking: the predictor of a study, its skill, and the controls."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.layout import PREDICTOR, RANKING, SCREENING
from ..core.progress import Reporter
from ..core.records import Controls, LabelJudgement, Push, Screening, Skill
from ..core.settings import Setting
from ..predictor.evidence import (
    LEAST_SPLIT,
    against_random_directions,
    judge_labels,
    reliability,
    residual_space,
    scored_halves,
    validate,
    without_dense_panel,
)
from ..predictor.model import (
    ModularityPredictor,
    primary_labels,
    rank_by_measurement,
    rank_by_others,
    rank_by_response,
    rank_features,
    save,
    statistics_of,
)
from ..steering_eval.choice import eligible_features
from .labelling import Labelling
from .response import Response
from .statistics import Statistics
from .store import Store

WEAKEST_PUSH, STRONGEST_PUSH = 0.02, 1.0
"""Shares of the residual stream's length: below, hardly anything is pushed; above, the push is most of
what the layers above see."""


@dataclass(frozen=True)
class Labelled:
    """Statistics and labels of the labelled features, row by row, indexed by feature."""

    statistics: pd.DataFrame
    labels: pd.DataFrame


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a study's features from their statistics."""

    store: Store
    statistics: Statistics
    response: Response
    labelling: Labelling
    reporter: Reporter
    seed: int

    def labelled(self) -> Labelled:
        """The sample's statistics and labels."""
        scheme = self.labelling.scheme
        labels = primary_labels(self.labelling.labels(), scheme=scheme)
        statistics = self.response.table().set_index("feature")
        names = statistics_of(statistics.columns, scheme)
        return Labelled(statistics.loc[labels.index, names], labels)

    def fit(self) -> tuple[ModularityPredictor, dict[str, Skill]]:
        """Fit the predictor on the sample's labels, cross-validate it, and save it."""
        known, run = self.labelled(), self.store.run
        targets = self.labelling.scheme.targets
        predictor = ModularityPredictor(targets, self.seed, least_labelled=LEAST_SPLIT)
        with run.timed("fit"), self.reporter.bar("predictor", predictor.n_fits) as progress:
            predictor.fit(known.statistics, known.labels, tick=lambda: progress(1))
            folds = {self.seed: predictor.out_of_fold_}
            skills = validate(known.statistics, known.labels, folds)
        save(predictor, run.path / PREDICTOR)
        return predictor, skills

    def rank(self, predictor: ModularityPredictor) -> pd.DataFrame:
        """Every feature of the dictionary, ranked by a predictor fitted on this study's labels; by the
        labels themselves where the setting labels every feature.
        """
        table = self.response.table()
        eligible = set(eligible_features(table).tolist())
        if self._setting.steering.ranked_by == "labels":
            return rank_features(table, self.labelled().labels, predictor, eligible)
        scheme = self.labelling.scheme
        labels = primary_labels(self.labelling.every_label(), scheme=scheme, among=eligible)
        halves = scored_halves(*self.labelling.halves(), scheme)
        return rank_by_measurement(table, labels, halves, eligible, scheme)

    @property
    def _setting(self) -> Setting:
        return self.labelling.inputs.setting

    def rank_by_response(self) -> pd.DataFrame:
        """Every feature of the dictionary, ranked by linear response alone."""
        table = self.response.table()
        eligible = set(eligible_features(table).tolist())
        return rank_by_response(table, eligible, self.labelling.scheme)

    def rank_anew(self) -> pd.DataFrame:
        """Fit, rank every feature, and keep the ranking; where the setting labels no feature, rank by
        linear response.

        Raises:
            InputError: the run is screened, and its labels now give another ranking than the one
                that its verdict is about.

        """
        if self._setting.steering.ranked_by == "linear response":
            ranking = self.rank_by_response()
        else:
            predictor, _ = self.fit()
            ranking = self.rank(predictor)
        self._refuse_beside_verdict(fingerprint_ranking(ranking))
        self.store.run.write_table(RANKING, ranking)
        return ranking

    def rank_by(self, predictor: ModularityPredictor) -> pd.DataFrame:
        """Rank every feature by a predictor that was fitted on other settings, and keep the ranking.

        Raises:
            InputError: it was fitted on one setting's own values, or this run is screened: its
                verdict would stand beside another ranking than it is about.

        """
        run = self.store.run
        if run.has(SCREENING):
            raise InputError(
                f"run {run.path} is screened, and its verdict is about its own ranking; rank by "
                "another predictor in another --run (cleansteer features SETTING --run DIR)"
            )
        table = self.response.table()
        ranking = rank_by_others(table, predictor, set(eligible_features(table).tolist()))
        run.write_table(RANKING, ranking)
        return ranking

    def _refuse_beside_verdict(self, fingerprint: str) -> None:
        run = self.store.run
        if not run.has(SCREENING):
            return
        about = run.read(SCREENING, Screening).ranking_fingerprint
        if about is None and run.has(RANKING):
            about = fingerprint_ranking(run.table(RANKING))
        if about is not None and about != fingerprint:
            raise InputError(
                f"run {run.path} is screened, and its labels now give another ranking than the one that "
                "its verdict is about; screen anew (cleansteer screen SETTING --overwrite), or rank in "
                "another --run"
            )

    def controls(self) -> Controls:
        """Reliability of the labels, random directions, dense panel features, residual space."""
        labels = self.labelled().labels
        panel = self.statistics.panel()
        statistics = self.statistics.table().set_index("feature")
        return Controls(
            reliability=reliability(*self.labelling.halves(), self.seed, self.labelling.scheme),
            random_directions=against_random_directions(
                labels, self.labelling.random_directions(), statistics, self.seed
            ),
            dense_panel=without_dense_panel(labels, len(panel.dense), int(panel.dense.sum())),
            residual_space=residual_space(labels),
        )

    def judged_labels(self, controls: Controls) -> dict[str, LabelJudgement]:
        """Whether the labels that are ranked by can be used; what is wrong with them is told."""
        judged = judge_labels(
            self.labelled().labels,
            controls.reliability,
            self.labelling.random_directions(),
            len(self.statistics.panel().features),
            self.labelling.scheme,
        )
        for name, label in judged.items():
            for reason in label.reasons:
                self.reporter.warn(f"the label {name} cannot be used: {reason}")
            for caveat in label.caveats:
                self.reporter.warn(caveat)
        return judged

    def push(self, labels: pd.DataFrame) -> Push:
        """How hard the features of these labels, indexed by feature, were pushed; a push that is hardly
        one, or that is longer than what it is added to, is told.
        """
        pushed = labels["coefficient"]
        if "clamp" in labels["mode"].iloc[0]:
            pushed = pushed - labels["context_act_mean"]
        norms = self.statistics.table().set_index("feature")["decoder_norm"]
        lengths = pushed.abs() * norms.loc[labels.index]
        divergence = labels.get("kl_clean_steered")
        share = float(lengths.median() / self.statistics.residual_norm())
        if not WEAKEST_PUSH <= share <= STRONGEST_PUSH:
            self.reporter.warn(
                f"features are pushed by {share:.2g} of the residual stream's length, expected "
                f"{WEAKEST_PUSH:.0%} to {STRONGEST_PUSH:.0%}; change the strength, or use mode 'matched'"
            )
        return Push(share=share, kl=None if divergence is None else float(divergence.median()))


def fingerprint_ranking(ranking: pd.DataFrame) -> str:
    """SHA-256 over the order of the features and their predicted clean scores to 9 digits, as 16
    hexadecimal digits.
    """
    scores = ranking["predicted_clean_score"].to_numpy(dtype=np.float64)
    digest = hashlib.sha256(ranking["feature"].to_numpy(dtype=np.int64).tobytes())
    digest.update(",".join(f"{score:.9g}" for score in scores).encode())
    return digest.hexdigest()[:16]
