"""What is measured in a run: labels, controls, doses, the fresh check."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.contexts import prompt_tokens
from ..core.errors import InputError
from ..core.settings import SteeringSetting
from ..features.sweep import final_activations
from ..predictor.controls import split_half
from ..predictor.sets import predictor_sets
from ..predictor.targets import primary_labels
from ..predictor.uncertainty import uncertainty
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
from ..steering_eval.prompts import PROMPT
from .statistics import Evaluating
from ..core.layout import DOSES, FRESH_LABELS, HALVES_LABELS, LABELS, RANDOM_DIRECTIONS, SAMPLE
from .inputs import CONTEXTS, FRESH_CONTEXTS
from .pilot import PILOT_SIZE, TARGETS, Goal, Step

LABEL_KEYS = ["feature", "mode", "alpha", "context_type"]
RELIABILITY = "reliability"
"""Entry of the manifest that holds the pilot's steps and what they led to."""


class Measurements(Evaluating):
    """The measured pieces of a run; each is read from the run directory or made."""

    def sampled(self) -> NDArray[np.int64]:
        """The features that the setting labels, in rising order.

        Where it samples in two rounds, the first is labelled for that: the second holds the
        features about which a predictor fitted on its labels is least sure. Which they are is kept
        in ``SAMPLE``, so that a run has one sample.
        """
        first, eligible = self.first_round(), eligible_features(self.features())
        wanted = min(self.setting.steering.n_features, len(eligible))
        if len(first) == wanted:
            return first
        if not self.run.has(SAMPLE):
            unsure = self._uncertainty(first, eligible)
            chosen = add_uncertain(eligible, first, unsure, wanted - len(first))
            table = pd.DataFrame(
                {"feature": chosen, "round": np.where(np.isin(chosen, first), 1, 2)}
            )
            self.run.write_table(SAMPLE, table.merge(unsure.reset_index(), how="left"))
        return self.run.table(SAMPLE, ("feature",))["feature"].to_numpy()

    def _uncertainty(self, first: NDArray[np.int64], eligible: NDArray[np.int64]) -> pd.Series:
        labels = self.labels(first)
        labels = primary_labels(labels[labels["feature"].isin(first)])
        statistics = self.features().set_index("feature")
        statistics = statistics[predictor_sets(statistics.columns)["full_all"]]
        return uncertainty(
            statistics.loc[labels.index],
            labels,
            statistics.loc[np.setdiff1d(eligible, first)],
            self.setting.seed,
        )

    def contexts_per_type(self) -> int:
        """Contexts of each type for each label: the setting's, or as many as the reliability that
        it asks for takes, within its budget.

        A pilot of at most 100 features of the sample is measured with more and more contexts, see
        :class:`Goal`; it is no part of the labels.
        """
        goal = Goal.of(self.setting.steering, self.setting.corpus.n_contexts)
        if goal is None:
            return self.setting.steering.contexts_per_type
        steps = [Step(**step) for step in self.run.manifest.get(RELIABILITY, {}).get("steps", [])]
        while (number := goal.next_number(steps)) is not None:
            steps.append(Step(number, self._pilot(number)))
            self.run.record(**{RELIABILITY: goal.report(steps)})
        return steps[-1].contexts_per_type

    def _pilot(self, per_type: int) -> dict[str, float]:
        first = self.first_round()
        chosen = first[evenly(len(first), PILOT_SIZE)]
        lean = {"vocabulary_labels": False, "reconstruction_labels": False}
        steering = self.setting.steering.model_copy(update=lean)
        contexts = self.run.tokens(CONTEXTS)
        activations = self._activations(len(contexts))
        plan = plan_typed(chosen, activations, per_type, self.setting.seed)
        stage = f"pilot, {per_type} contexts of each type"
        table = self._evaluate(plan, contexts, activations, steering, stage, stage)
        self._forget(steering)
        return split_half(*_halves(table, chosen), TARGETS)

    def labels(
        self,
        features: Sequence[int] | NDArray[np.int64] | None = None,
        steering: SteeringSetting | None = None,
    ) -> pd.DataFrame:
        """Labels of some features (the setting's sample) in all context types; kept with the others.

        Raises:
            InputError: a feature is not in the dictionary.

        """
        n_features = len(self.features())
        steering = steering or self.setting.steering
        if features is None:
            sampled = self.sampled()
            # Round by round whatever is there: a label's last digits depend on those it is
            # measured with.
            self._label(np.intersect1d(sampled, self.first_round()), steering)
            return self._label(sampled, steering, ", second round")
        wanted = np.unique(features)
        outside = wanted[(wanted < 0) | (wanted >= n_features)]
        if len(outside):
            raise InputError(
                f"feature {outside[0]} is out of range, expected 0 to {n_features - 1}; correct "
                "--features"
            )
        return self._label(wanted, steering)

    def _label(
        self, wanted: NDArray[np.int64], steering: SteeringSetting, which: str = ""
    ) -> pd.DataFrame:
        """Label those of the features that are not labelled yet; all labels of this steering."""
        same = self._labelled_so(LABELS, steering)
        if same is not None:
            wanted = np.setdiff1d(wanted, same["feature"])
        if len(wanted):
            self._record_sources()
            contexts = self.run.tokens(CONTEXTS)
            activations = self._activations(len(contexts))
            plan = plan_typed(wanted, activations, self.contexts_per_type(), self.setting.seed)
            description = f"steering{which}"
            if steering.alpha != self.setting.steering.alpha:
                description += f", alpha {steering.alpha:g}"
            stage = f"labels{which}"
            new = self._evaluate(plan, contexts, activations, steering, stage, description)
            new = new.merge(self._prompt_scores(wanted, steering), on="feature")
            half = new["context_type"].isin(HALVES)
            self._append(HALVES_LABELS, new[half])
            self._append(LABELS, new[~half])
            same = self._labelled_so(LABELS, steering)
        assert same is not None
        return same

    def halves(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The labels of the sample on two disjoint halves of the contexts, indexed by feature."""
        features = self.labels()["feature"].unique()
        table = self._labelled_so(HALVES_LABELS, self.setting.steering)
        assert table is not None
        return _halves(table, features)

    def random_directions(self) -> pd.DataFrame:
        """Labels of random directions in the places of some labelled features, indexed by these.

        Each has its feature's norm, contexts and coefficients, and depends on the seed and the
        feature alone.
        """
        if not self.run.has(RANDOM_DIRECTIONS):
            sampled = self.sampled()
            chosen = sampled[evenly(len(sampled), self.setting.steering.n_controls)]
            contexts = self.run.tokens(CONTEXTS)
            activations = self._activations(len(contexts))
            per_type = self.contexts_per_type()
            union = plan_typed(chosen, activations, per_type, self.setting.seed).union
            table = self._evaluate(
                Plan(chosen, [{"mixed": some} for some in union], union),
                contexts,
                activations,
                self.setting.steering,
                "random_directions",
                "random directions",
                random_like(self.primary.decoder, chosen, self.setting.seed),
            )
            self.run.write_table(RANDOM_DIRECTIONS, table)
        return self.run.table(RANDOM_DIRECTIONS, ("feature",)).set_index("feature")

    def doses(
        self,
        features: Sequence[int] | None,
        steering: SteeringSetting,
        alphas: Sequence[float],
        budget: float,
    ) -> pd.DataFrame:
        """Labels of some features at several strengths, with the strength recommended for each
        (see :func:`recommend`), which is kept by itself too.
        """
        table = pd.concat(
            [
                self.labels(features, steering.model_copy(update={"alpha": alpha}))
                for alpha in alphas
            ],
            ignore_index=True,
        )
        wanted = self.sampled() if features is None else features
        table = table[table["feature"].isin(wanted)]
        recommended = recommend(table[table["context_type"] == "mixed"], budget)
        self.run.write_table(DOSES, recommended)
        return table.merge(recommended, on="feature").sort_values(
            LABEL_KEYS, kind="stable", ignore_index=True
        )

    def _labelled_so(self, name: str, steering: SteeringSetting) -> pd.DataFrame | None:
        """The rows of a kept table that were measured in this mode and strength."""
        if not self.run.has(name):
            return None
        table = self.run.table(name, tuple(LABEL_KEYS))
        return table[(table["mode"] == steering.mode) & (table["alpha"] == steering.alpha)]

    def _append(self, name: str, new: pd.DataFrame) -> None:
        if self.run.has(name):
            new = pd.concat([self.run.table(name), new], ignore_index=True)
        new = new.drop_duplicates(LABEL_KEYS, keep="last")
        self.run.write_table(name, new.sort_values(LABEL_KEYS, kind="stable", ignore_index=True))

    def _prompt_scores(
        self, features: NDArray[np.int64], steering: SteeringSetting
    ) -> pd.DataFrame:
        prompt = prompt_tokens(PROMPT, self.model.tokenizer)
        return self._evaluator(steering).prompt_scores(features, prompt)

    def fresh_labels(self, features: NDArray[np.int64]) -> pd.DataFrame:
        """Labels of some features on every fresh context, indexed by feature."""
        features = np.sort(features)
        if self.run.has(FRESH_LABELS):
            table = self.run.table(FRESH_LABELS, ("feature", "n_contexts"))
            if np.array_equal(np.sort(table["feature"]), features):
                return table.set_index("feature")
        self.prepare(FRESH_CONTEXTS)
        self._record_sources()
        contexts = self.run.tokens(FRESH_CONTEXTS)[: self.setting.heldout_corpus.n_evaluated]
        activations = final_activations(self.model, self.primary, contexts)
        table = self._evaluate(
            plan_all(features, len(contexts)),
            contexts,
            activations,
            self.setting.steering,
            "fresh_labels",
            "fresh check",
        )
        self.run.write_table(FRESH_LABELS, table)
        return table.set_index("feature")


def _halves(table: pd.DataFrame, features: NDArray[np.int64]) -> tuple[pd.DataFrame, pd.DataFrame]:
    first, second = (
        table[table["context_type"] == name].set_index("feature").loc[features] for name in HALVES
    )
    return first, second
