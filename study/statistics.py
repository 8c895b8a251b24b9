"""Statistics of a run's features, and the steering of them that checks itself."""

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from numpy.typing import NDArray

from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.settings import Setting, SteeringSetting
from ..features.sweep import measure_features
from ..steering_eval.choice import Plan, eligible_features, sample_features
from ..steering_eval.collateral import CollateralPanel, choose_panel
from ..steering_eval.evaluation import Evaluator
from ..steering_eval.interventions import global_value
from ..core.layout import FEATURES
from .inputs import CONTEXTS, Loading
from .published import deviations, published_for

ACTIVATIONS = "final_activations.parquet"
DOWNSTREAM = "downstream.parquet"

SPOT_CHECKS = 3
SPOT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of fast and slow logit changes, relative to the largest change: rounding."""


class Evaluating(Loading):
    """The feature table of a run, and labels of any plan."""

    def __init__(
        self, setting: Setting, run: RunDirectory, reporter: Reporter, device: str = "cpu"
    ) -> None:
        super().__init__(setting, run, reporter, device)
        self._evaluators: dict[str, Evaluator] = {}

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

    def first_round(self) -> NDArray[np.int64]:
        """The features that are labelled first: the whole sample, or its first round where the
        setting samples in two.

        The global value c is theirs, so that the labels of both rounds are comparable.
        """
        return sample_features(self.features(), self.setting)

    def _activations(self, n_contexts: int) -> scipy.sparse.csc_array:
        table = self.run.table(ACTIVATIONS, ("context", "feature", "activation"))
        return scipy.sparse.csc_array(
            (table["activation"], (table["context"], table["feature"])),
            shape=(n_contexts, self.primary.n_features),
        )

    def panel(self) -> CollateralPanel:
        """The downstream features in which collateral is counted."""
        return choose_panel(self.run.table(DOWNSTREAM), self.setting.steering.panel_size)

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

    def _forget(self, steering: SteeringSetting) -> None:
        """Let go of an evaluator, which holds a copy of the unembedding."""
        self._evaluators.pop(steering.model_dump_json(), None)

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
        statistics, folder = self.features(), self.run.path / "unfinished"
        c = global_value(statistics, self.first_round())
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
                folder,
                progress,
                directions,
            )
        self.run.record(global_value=c, n_pairs={stage: plan.n_pairs})
        if not any(folder.iterdir()):  # what another command left off waits for it there
            folder.rmdir()
        return table


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
