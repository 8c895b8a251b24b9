"""What is measured in a run: contexts, statistics, labels, controls."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from numpy.typing import NDArray

from ..core.contexts import build_contexts, prompt_tokens
from ..core.errors import InputError
from ..core.models import LanguageModel, load_model
from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.saes import Dictionary, load_dictionary
from ..core.settings import Setting, SteeringSetting
from ..core.texts import read_texts
from ..features.sweep import final_activations, measure_features
from ..steering_eval.choice import (
    HALVES,
    Plan,
    eligible_features,
    plan_all,
    plan_typed,
    sample_features,
)
from ..steering_eval.collateral import Panel, choose_panel
from ..steering_eval.doses import recommend
from ..steering_eval.evaluation import PROMPT, Evaluator
from ..steering_eval.interventions import global_value, random_like
from .published import deviations, published_for

CONTEXTS = "contexts.safetensors"
FRESH_CONTEXTS = "fresh_contexts.safetensors"
FEATURES = "features.parquet"
ACTIVATIONS = "final_activations.parquet"
DOWNSTREAM = "downstream.parquet"
LABELS = "labels.parquet"
HALVES_LABELS = "halves.parquet"
RANDOM_DIRECTIONS = "random_directions.parquet"
DOSES = "doses.parquet"
FRESH_LABELS = "fresh_labels.parquet"

LABEL_KEYS = ["feature", "mode", "alpha", "context_type"]
SPOT_CHECKS = 3
SPOT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of fast and slow logit changes, relative to the largest change: rounding."""


class Measurements:
    """The measured pieces of a run; each is read from the run directory or made."""

    def __init__(
        self, setting: Setting, run: RunDirectory, reporter: Reporter, device: str = "cpu"
    ) -> None:
        self.setting = setting
        self.run = run
        self._reporter = reporter
        self._device = device
        self._evaluators: dict[str, Evaluator] = {}

    @cached_property
    def model(self) -> LanguageModel:
        """The language model, loaded when first needed."""
        model = load_model(self.setting, self._device)
        for name in ("corpus", "heldout_corpus"):
            length = getattr(self.setting, name).context_length
            if model.n_positions is not None and length > model.n_positions:
                raise InputError(
                    f"[{name}] context_length = {length} is more than the model's "
                    f"{model.n_positions} positions; lower it"
                )
        return model

    @cached_property
    def primary(self) -> Dictionary:
        """The SAE whose features are steered."""
        return load_dictionary(self.setting, self.setting.sae, self.model, self._device)

    @cached_property
    def downstream(self) -> Dictionary:
        """The SAE in which collateral is read."""
        downstream = load_dictionary(
            self.setting, self.setting.downstream_sae, self.model, self._device
        )
        if downstream.site.order < self.primary.site.order:
            raise InputError(
                f"downstream SAE reads {downstream.site.hook}, which lies below the steered "
                f"{self.primary.site.hook}; expected the same place or a later one; change "
                "[downstream_sae]"
            )
        return downstream

    def prepare(self, *names: str) -> None:
        """Check all that the setting names, and build contexts (``CONTEXTS``, ``FRESH_CONTEXTS``).

        Nothing is written before everything is known to be right.
        """
        missing = [name for name in names if not self.run.has(name)]
        if not missing:
            return
        steering = self.setting.steering
        if self.setting.corpus.n_contexts < 3 * steering.contexts_per_type:
            raise InputError(
                f"n_contexts = {self.setting.corpus.n_contexts} is too few for contexts_per_type = "
                f"{steering.contexts_per_type}, expected at least {3 * steering.contexts_per_type}; "
                "raise one or lower the other"
            )
        _ = self.primary, self.downstream
        corpus, heldout = self.setting.corpus, self.setting.heldout_corpus
        tokenizer = self.model.tokenizer
        seed, texts = self.setting.seed, read_texts(self.setting, corpus)
        built = {}
        if CONTEXTS in missing:
            built[CONTEXTS] = build_contexts(texts, corpus, tokenizer, seed)
        if FRESH_CONTEXTS in missing:
            fresh = read_texts(self.setting, heldout, set(texts))
            built[FRESH_CONTEXTS] = build_contexts(fresh, heldout, tokenizer, seed)
        self._record_sources()
        for name, contexts in built.items():
            self.run.write_tokens(name, contexts)

    def _record_sources(self) -> None:
        model, primary, downstream = self.model, self.primary, self.downstream
        fingerprints = {
            "model": model.fingerprint,
            "sae": primary.fingerprint,
            "downstream_sae": downstream.fingerprint,
        }
        known = self.run.manifest.get("fingerprints", fingerprints)
        for name, value in fingerprints.items():
            if known.get(name) != value:
                raise InputError(
                    f"run {self.run.path} was made with another {name} (fingerprint "
                    f"{known.get(name)}, now {value}); give another --run, or --overwrite"
                )
        self.run.record(
            fingerprints=fingerprints,
            hooks={"sae": primary.site.hook, "downstream_sae": downstream.site.hook},
            centred={"sae": primary.centred, "downstream_sae": downstream.centred},
        )

    def features(self) -> pd.DataFrame:
        """The statistics of every feature."""
        if not (self.run.has(FEATURES) and self.run.has(ACTIVATIONS) and self.run.has(DOWNSTREAM)):
            self.prepare(CONTEXTS)
            self._record_sources()
            contexts = self.run.tokens(CONTEXTS)
            with (
                self.run.timed("features"),
                self._reporter.bar("statistics", len(contexts)) as progress,
            ):
                measured = measure_features(
                    self.model,
                    self.primary,
                    self.downstream,
                    contexts,
                    self.setting.steering,
                    progress,
                )
            mean_l0 = {"sae": measured.mean_l0, "downstream_sae": measured.downstream_mean_l0}
            n_eligible = len(eligible_features(measured.table))
            published = published_for(self.setting)
            warnings = [] if published is None else deviations(published, mean_l0, n_eligible)
            for warning in warnings:
                self._reporter.warn(warning)
            self.run.record(mean_l0=mean_l0, n_eligible=n_eligible, warnings=warnings)
            self.run.write_table(ACTIVATIONS, _long(measured.final_activations))
            self.run.write_table(DOWNSTREAM, measured.downstream)
            self.run.write_table(FEATURES, measured.table)
        return self.run.table(FEATURES, ("feature", "final_act_freq", "final_act_q95"))

    def sampled(self) -> NDArray[np.int64]:
        """The features that the setting labels."""
        return sample_features(self.features(), self.setting)

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

    def _activations(self, n_contexts: int) -> scipy.sparse.csc_array:
        table = self.run.table(ACTIVATIONS, ("context", "feature", "activation"))
        return scipy.sparse.csc_array(
            (table["activation"], (table["context"], table["feature"])),
            shape=(n_contexts, self.primary.n_features),
        )

    def panel(self) -> Panel:
        """The downstream features in which collateral is counted."""
        return choose_panel(self.run.table(DOWNSTREAM), self.setting.steering.panel_size)

    def _prompt_scores(
        self, features: NDArray[np.int64], steering: SteeringSetting
    ) -> pd.DataFrame:
        prompt = prompt_tokens(PROMPT, self.model.tokenizer)
        return self._evaluator(steering).prompt_scores(features, prompt)

    def _evaluator(self, steering: SteeringSetting) -> Evaluator:
        """The evaluator, by full passes where the resumed pass does not know the model or was found
        to differ from them.
        """
        key = steering.model_dump_json()
        if key not in self._evaluators:
            full = self.run.manifest.get("evaluator", {}).get("method") == "full"
            self._evaluators[key] = Evaluator(
                self.model, self.primary, self.downstream, self.panel(), steering, full
            )
        return self._evaluators[key]

    def _checked_evaluator(
        self, plan: Plan, contexts: torch.Tensor, steering: SteeringSetting, c: float
    ) -> Evaluator:
        evaluator = self._evaluator(steering)
        if not evaluator.resumed:
            if "evaluator" not in self.run.manifest:
                kind = self.model.config.model_type
                self._fall_back(f"the fast evaluator does not know models of type {kind!r}", None)
            return evaluator
        difference = evaluator.spot_check(plan, contexts, c * steering.alpha, SPOT_CHECKS)
        tolerance = SPOT_TOLERANCE[self.setting.model.dtype]
        if not difference < tolerance:
            self._fall_back(
                f"fast and slow differ by {difference:.2g} of the largest change, expected less than "
                f"{tolerance}",
                difference,
            )
            self._evaluators.clear()
            return self._evaluator(steering)
        largest = self.run.manifest.get("evaluator", {}).get("largest_difference", 0.0)
        self.run.record(
            evaluator={
                "method": "resumed",
                "pairs_compared": min(SPOT_CHECKS, len(plan.features)),
                "largest_difference": max(largest, difference),
                "tolerance": tolerance,
            }
        )
        return evaluator

    def _fall_back(self, reason: str, difference: float | None) -> None:
        self._reporter.warn(
            f"{reason}: features are steered by full forward passes, exact but much slower"
        )
        self.run.record(
            evaluator={
                "method": "full",
                "reason": reason,
                "largest_difference": (
                    None if difference is None or not np.isfinite(difference) else difference
                ),
            }
        )

    def _evaluate(
        self,
        plan: Plan,
        contexts: torch.Tensor,
        activations: scipy.sparse.csc_array,
        steering: SteeringSetting,
        stage: str,
        description: str,
        directions: torch.Tensor | None = None,
    ) -> pd.DataFrame:
        statistics = self.features()
        c = global_value(statistics, self.sampled())
        evaluator = self._checked_evaluator(plan, contexts, steering, c)
        with (
            self.run.timed(stage),
            self._reporter.bar(description, plan.n_pairs) as progress,
        ):
            table = evaluator.evaluate(
                plan,
                contexts,
                activations,
                statistics,
                c,
                self.run.path / "unfinished",
                progress,
                directions,
            )
        self.run.record(global_value=c, n_pairs={stage: plan.n_pairs})
        (self.run.path / "unfinished").rmdir()
        return table

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


def _long(activations: scipy.sparse.csc_array) -> pd.DataFrame:
    entries = activations.tocoo()
    order = np.lexsort((entries.row, entries.col))
    return pd.DataFrame(
        {
            "context": entries.row[order].astype(np.int32),
            "feature": entries.col[order].astype(np.int32),
            "activation": entries.data[order].astype(np.float32),
        }
    )
