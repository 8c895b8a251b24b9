"""Labels of a study: its sample, features chosen by hand, random directions, doses, fresh labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.layout import (
    DOSES,
    FRESH_LABELS,
    HALVES_LABELS,
    LABELS,
    RANDOM_DIRECTIONS,
    SAMPLE,
)
from ..core.records import PilotStep
from ..core.settings import SteeringSetting
from ..features.sweep import final_activations
from ..predictor.evidence import split_half
from ..predictor.model import Scheme, primary_labels, scheme_for, statistics_of, uncertainty
from ..steering_eval.choice import (
    HALVES,
    Plan,
    add_uncertain,
    eligible_features,
    evenly,
    plan_all,
    plan_typed,
)
from ..steering_eval.doses import recommend
from ..steering_eval.interventions import random_like
from .inputs import Inputs
from .pilot import PILOT_SIZE, Goal
from .response import Response
from .statistics import Statistics
from .steering import Steering
from .store import LABEL_KEYS, Store

Features = NDArray[np.int64]
_STAGE, _RANDOM, _FRESH = "labels", "random_directions", "fresh_labels"


@dataclass(frozen=True)
class Labelling:
    """The measured pieces of a study; each is read from the store or made."""

    inputs: Inputs
    store: Store
    statistics: Statistics
    steering: Steering
    response: Response

    def sample(self) -> Features:
        """The features that the setting labels, in rising order.

        Where it samples in two rounds, the first is labelled for that: the second holds the
        features about which a predictor fitted on its labels is least sure. Which they are is kept
        in ``SAMPLE``, so that a run has one sample.
        """
        if self._own.n_features == 0:
            return np.empty(0, dtype=np.int64)
        first, eligible = self.statistics.first_round(), eligible_features(self.statistics.table())
        wanted = min(self._own.most_labelled, len(eligible))
        if len(first) == wanted:
            return first

        def make() -> pd.DataFrame:
            unsure = self._uncertainty(first, eligible)
            chosen = add_uncertain(eligible, first, unsure, wanted - len(first))
            rounds = np.where(np.isin(chosen, first), 1, 2)
            table = pd.DataFrame({"feature": chosen, "round": rounds})
            return table.merge(unsure.reset_index(), how="left")

        return self.store.table(SAMPLE, make, ("feature",))["feature"].to_numpy()

    def _keep_sample(self) -> None:
        """Write down what the sample is, for those who read labels without a study."""
        if not self.store.run.has(SAMPLE):
            sample = self.sample()
            self.store.table(SAMPLE, lambda: pd.DataFrame({"feature": sample, "round": 1}))

    def _uncertainty(self, first: Features, eligible: Features) -> pd.Series:
        labels = primary_labels(_of(self._label(first, self._own), first), scheme=self.scheme)
        statistics = self.response.table().set_index("feature")
        statistics = statistics[statistics_of(statistics.columns, self.scheme)]
        return uncertainty(
            statistics.loc[labels.index],
            labels,
            statistics.loc[np.setdiff1d(eligible, first)],
            self.inputs.setting.seed,
        )

    @property
    def scheme(self) -> Scheme:
        """Which labels make up the clean score and stand for the axes."""
        return scheme_for(self._own.collateral, self._own.mode)

    @property
    def _own(self) -> SteeringSetting:
        """Mode and strength of the setting."""
        return self.inputs.setting.steering

    def contexts_per_type(self) -> int:
        """Contexts of each type for each label: the setting's, or as many as the reliability that
        it asks for takes, within its budget.

        A pilot of at most 100 features of the sample is measured with more and more contexts, see
        :class:`~cleansteer.study.pilot.Goal`; it is no part of the labels.
        """
        goal = Goal.of(self._own, self.inputs.setting.corpus.n_contexts)
        if goal is None:
            return self._own.contexts_per_type
        run = self.store.run
        steps = [] if run.manifest.reliability is None else list(run.manifest.reliability.steps)
        while (number := goal.next_number(steps)) is not None:
            steps.append(PilotStep(contexts_per_type=number, reliability=self._pilot(number)))
            run.update(reliability=goal.report(steps))
        return steps[-1].contexts_per_type

    def _pilot(self, per_type: int) -> dict[str, float]:
        first = self.statistics.first_round()
        chosen = first[evenly(len(first), PILOT_SIZE)]
        lean = {"vocabulary_labels": False, "reconstruction_labels": False}
        steering = self._own.model_copy(update=lean)
        contexts = self.store.contexts(self.inputs)
        activations = self.statistics.activations(len(contexts))
        plan = plan_typed(chosen, activations, per_type, self.inputs.setting.seed)
        stage = f"pilot, {per_type} contexts of each type"
        table = self.steering.evaluate(plan, contexts, activations, steering, stage, stage)
        self.steering.forget(steering)
        return split_half(*_halves(table, table["feature"].unique()), self.scheme)

    def labels(self) -> pd.DataFrame:
        """Labels of the sample, in the setting's mode and strength and in all context types.

        Features that somebody measured by hand are not among them, so that nothing enters the
        predictor or the verdict that the setting does not draw.
        """
        return self._sample_labels(self._own)

    def _sample_labels(self, steering: SteeringSetting) -> pd.DataFrame:
        if self._own.n_features == 0:
            raise InputError(
                f"setting {self.inputs.setting.name!r} labels no feature (n_features = 0), expected some "
                "where labels are asked for; screen in another --run with --labels N, or name features "
                "(cleansteer evaluate --features)"
            )
        sample = self.sample()
        # Round by round whatever is there: a label's last digits depend on those it is measured with.
        self._keep_sample()
        self._label(np.intersect1d(sample, self.statistics.first_round()), steering)
        return _of(self._label(sample, steering, ", second round"), sample)

    def every_label(self) -> pd.DataFrame:
        """Labels of every feature of the dictionary, in the setting's mode and strength and in all
        context types: those of the sample first, as :meth:`labels` has them.
        """
        self._sample_labels(self._own)
        return self._label(np.arange(len(self.statistics.table())), self._own, ", not eligible")

    def labels_of(
        self, features: Sequence[int] | Features | None, steering: SteeringSetting
    ) -> pd.DataFrame:
        """Labels of some features (None: the sample) in all context types, by one mode and strength.

        Raises:
            InputError: a feature is not in the dictionary.

        """
        if features is None:
            return self._sample_labels(steering)
        wanted, n_features = np.unique(features), len(self.statistics.table())
        outside = wanted[(wanted < 0) | (wanted >= n_features)]
        if len(outside):
            raise InputError(
                f"feature {outside[0]} is out of range, expected 0 to {n_features - 1}; correct "
                "--features"
            )
        return _of(self._label(wanted, steering), wanted)

    def _label(self, wanted: Features, steering: SteeringSetting, which: str = "") -> pd.DataFrame:
        """Label those of the features that are not labelled yet; all labels of this steering."""
        known = self.store.labels(LABELS, steering)
        wanted = np.setdiff1d(wanted, self._done(known, steering))
        if known is not None and not len(wanted):
            return known
        self.store.check_inputs(self.inputs)
        contexts = self.store.contexts(self.inputs)
        activations = self.statistics.activations(len(contexts))
        seed = self.inputs.setting.seed
        plan = plan_typed(wanted, activations, self.contexts_per_type(), seed)
        description = f"steering{which}"
        if steering.strength != self._own.strength:
            description += f", {_word(steering)} {steering.strength:g}"
        new = self.steering.evaluate(
            plan, contexts, activations, steering, f"{_STAGE}{which}", description
        )
        scored = np.intersect1d(wanted, new["feature"])
        new = new.merge(self.steering.prompt_scores(scored, steering), on="feature")
        half = new["context_type"].isin(HALVES)
        self.store.add_labels(HALVES_LABELS, new[half])
        self.store.add_labels(LABELS, new[~half])
        labels = self.store.labels(LABELS, steering)
        assert labels is not None
        return labels

    def _done(
        self, known: pd.DataFrame | None, steering: SteeringSetting, stage: str = _STAGE
    ) -> Features:
        """Features that are labelled, or that no push makes comparable."""
        missed = [
            each.feature
            for each in self.store.run.manifest.unmatched
            if steering.mode == "matched"
            and each.stage.startswith(stage)
            and each.target_kl == steering.strength
        ]
        labelled = missed[:0] if known is None else known["feature"].tolist()
        return np.union1d(labelled, missed).astype(np.int64)

    def _whole(self, known: pd.DataFrame, features: Features, stage: str) -> bool:
        """Whether a table holds all of the features that can be measured, and no other."""
        return bool(
            np.isin(known["feature"], features).all()
            and np.isin(features, self._done(known, self._own, stage)).all()
        )

    def halves(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The labels of the sample on two disjoint halves of the contexts, indexed by feature."""
        features = self.labels()["feature"].unique()
        table = self.store.labels(HALVES_LABELS, self._own)
        assert table is not None
        return _halves(table, features)

    def random_directions(self) -> pd.DataFrame:
        """Labels of random directions in the places of some labelled features, indexed by these.

        Each has its feature's norm, contexts and coefficients, and depends on the seed and the
        feature alone.
        """
        sample, seed = self.labels()["feature"].unique(), self.inputs.setting.seed
        chosen = sample[evenly(len(sample), self._own.n_controls)]

        def make() -> pd.DataFrame:
            contexts = self.store.contexts(self.inputs)
            activations = self.statistics.activations(len(contexts))
            union = plan_typed(chosen, activations, self.contexts_per_type(), seed).union
            return self.steering.evaluate(
                Plan(chosen, [{"mixed": some} for some in union], union),
                contexts,
                activations,
                self._own,
                _RANDOM,
                "random directions",
                random_like(self.inputs.primary.decoder, chosen, seed),
            )

        table = self.store.table(
            RANDOM_DIRECTIONS, make, ("feature",), lambda known: self._whole(known, chosen, _RANDOM)
        )
        return table.set_index("feature")

    def doses(
        self,
        features: Sequence[int] | None,
        steering: SteeringSetting,
        alphas: Sequence[float],
        budget: float,
    ) -> pd.DataFrame:
        """Labels of some features at several strengths, with the strength recommended for each
        (see :func:`~cleansteer.steering_eval.doses.recommend`), which is kept by itself too.
        """
        tables = [
            self.labels_of(features, steering.model_copy(update={"alpha": alpha}))
            for alpha in alphas
        ]
        table = pd.concat(tables, ignore_index=True)
        recommended = recommend(table[table["context_type"] == "mixed"], budget)
        self.store.run.write_table(DOSES, recommended)
        return table.merge(recommended, on="feature").sort_values(
            list(LABEL_KEYS), kind="stable", ignore_index=True
        )

    def fresh_labels(self, features: Features) -> pd.DataFrame:
        """Labels of some features on every fresh context, indexed by feature."""
        features = np.sort(features)

        def make() -> pd.DataFrame:
            contexts = self.store.fresh_contexts(self.inputs)
            self.store.check_inputs(self.inputs)
            return self.steering.evaluate(
                plan_all(features, len(contexts)),
                contexts,
                final_activations(self.inputs.model, self.inputs.primary, contexts),
                self._own,
                _FRESH,
                "fresh check",
            )

        table = self.store.table(
            FRESH_LABELS,
            make,
            ("feature", "n_contexts"),
            lambda known: self._whole(known, features, _FRESH),
        )
        return table.set_index("feature")


def _word(steering: SteeringSetting) -> str:
    return "KL" if steering.mode == "matched" else "alpha"


def _of(table: pd.DataFrame, features: Features) -> pd.DataFrame:
    return table[table["feature"].isin(features)]


def _halves(table: pd.DataFrame, features: Features) -> tuple[pd.DataFrame, pd.DataFrame]:
    first, second = (
        table[table["context_type"] == name].set_index("feature").loc[features] for name in HALVES
    )
    return first, second
