"""What is measured in a run: labels, controls, doses, the fresh check."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.contexts import prompt_tokens
from ..core.errors import InputError
from ..core.settings import SteeringSetting
from ..features.sweep import final_activations
from ..steering_eval.choice import HALVES, Plan, plan_all, plan_typed
from ..steering_eval.doses import recommend
from ..steering_eval.evaluation import PROMPT
from ..steering_eval.interventions import random_like
from .evaluating import Evaluating
from .loading import CONTEXTS, FRESH_CONTEXTS

LABELS = "labels.parquet"
HALVES_LABELS = "halves.parquet"
RANDOM_DIRECTIONS = "random_directions.parquet"
DOSES = "doses.parquet"
FRESH_LABELS = "fresh_labels.parquet"

LABEL_KEYS = ["feature", "mode", "alpha", "context_type"]


class Measurements(Evaluating):
    """The measured pieces of a run; each is read from the run directory or made."""

    def labels(
        self,
        features: Sequence[int] | None = None,
        steering: SteeringSetting | None = None,
    ) -> pd.DataFrame:
        """Labels of some features (the setting's sample) in all context types; kept with the others.

        Raises:
            InputError: a feature is not in the dictionary.

        """
        statistics = self.features()
        steering = steering or self.setting.steering
        wanted = self.sampled() if features is None else np.unique(features)
        outside = wanted[(wanted < 0) | (wanted >= len(statistics))]
        if len(outside):
            raise InputError(
                f"feature {outside[0]} is out of range, expected 0 to {len(statistics) - 1}; correct "
                "--features"
            )
        same = self._labelled_so(LABELS, steering)
        if same is not None:
            wanted = np.setdiff1d(wanted, same["feature"])
        if len(wanted):
            self._record_sources()
            contexts = self.run.tokens(CONTEXTS)
            activations = self._activations(len(contexts))
            plan = plan_typed(wanted, activations, self.setting)
            description = (
                "steering"
                if steering.alpha == self.setting.steering.alpha
                else (f"steering, alpha {steering.alpha:g}")
            )
            new = self._evaluate(plan, contexts, activations, steering, "labels", description)
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
        first, second = (
            table[table["context_type"] == name].set_index("feature").loc[features]
            for name in HALVES
        )
        return first, second

    def random_directions(self) -> pd.DataFrame:
        """Labels of random directions in the places of some labelled features, indexed by these.

        Each has its feature's norm, contexts and coefficients, and depends on the seed and the
        feature alone.
        """
        if not self.run.has(RANDOM_DIRECTIONS):
            sampled = self.sampled()
            wanted = min(len(sampled), self.setting.steering.n_controls)
            chosen = sampled[np.linspace(0, len(sampled) - 1, wanted).astype(int)]
            contexts = self.run.tokens(CONTEXTS)
            activations = self._activations(len(contexts))
            union = plan_typed(chosen, activations, self.setting).union
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
