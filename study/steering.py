"""Steering of a study's features by an evaluator that is checked before it is believed."""

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from numpy.typing import NDArray

from ..core.contexts import prompt_tokens
from ..core.errors import InputError
from ..core.layout import UNFINISHED
from ..core.progress import Reporter
from ..core.records import SelfCheck
from ..core.settings import SteeringSetting
from ..features.response import CURVATURE
from ..steering_eval.choice import Plan
from ..steering_eval.evaluation import Evaluator
from ..steering_eval.interventions import global_value, residual_units
from ..steering_eval.matching import matched_values
from ..steering_eval.prompts import PROMPT
from .inputs import Inputs
from .matching import FIRST_PUSH, Matching
from .statistics import Statistics
from .store import Store

SPOT_CHECKS = 3
SPOT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of fast and slow logit changes, relative to the largest change: rounding."""


class Steering:
    """Labels of any plan; the fast evaluator is compared with full forward passes first."""

    def __init__(
        self, inputs: Inputs, store: Store, statistics: Statistics, reporter: Reporter
    ) -> None:
        self._inputs = inputs
        self._store = store
        self._statistics = statistics
        self._reporter = reporter
        self._evaluators: dict[SteeringSetting, Evaluator] = {}

    def evaluate(
        self,
        plan: Plan,
        contexts: torch.Tensor,
        activations: scipy.sparse.csc_array,
        steering: SteeringSetting,
        stage: str,
        description: str,
        directions: torch.Tensor | None = None,
    ) -> pd.DataFrame:
        """Labels of a plan: a row per feature and context type.

        Args:
            plan: which features are steered in which contexts.
            contexts: token ids, ``[context, token]``.
            activations: the steered SAE's final activations there, ``[context, feature]``.
            steering: mode and strength.
            stage: name under which time and number of pairs are recorded.
            description: for the progress bar.
            directions: what is added in place of each feature's decoder row, ``[feature, width]``.

        """
        run, table = self._store.run, self._statistics.table()
        folder = run.path / UNFINISHED
        units = self.units(steering)[plan.features]
        evaluator = self.checked_evaluator(plan, contexts, steering)
        if steering.mode == "matched":
            matching = Matching(
                evaluator, run, self._reporter, self.residual_units()[plan.features]
            )
            plan, units, directions = matching.match(
                plan, contexts, steering, stage, description, units, directions
            )
        with run.timed(stage), self._reporter.bar(description, plan.n_pairs) as progress:
            labels = evaluator.evaluate(
                plan, contexts, activations, table, units, folder, progress, directions
            )
        c = global_value(table, self._statistics.reference())
        run.update(global_value=c, n_pairs={stage: plan.n_pairs})
        if not any(folder.iterdir()):  # what another command left off waits for it there
            folder.rmdir()
        return labels

    def units(self, steering: SteeringSetting) -> NDArray[np.float64]:
        """What a strength of 1 is for every feature of the dictionary; in mode ``matched``, by the
        forecast of linear response where there is one, where the search begins.
        """
        table = self._statistics.table()
        if steering.mode == "matched":
            return self._forecast(steering.strength)
        if steering.alpha_units == "residual":
            return self.residual_units()
        return np.full(len(table), global_value(table, self._statistics.reference()))

    def residual_units(self) -> NDArray[np.float64]:
        """The coefficient by which each feature's push is as long as the residual stream."""
        return residual_units(self._inputs.primary.decoder, self._statistics.residual_norm())

    def _forecast(self, target: float) -> NDArray[np.float64]:
        """Where the KL is ``target`` to second order; where no linear response was measured, a tenth
        of the residual stream's length.
        """
        table = self._statistics.table()
        if CURVATURE not in table:
            return FIRST_PUSH * self.residual_units()
        return matched_values(table[CURVATURE].to_numpy(), target, self.residual_units())

    def prompt_scores(self, features: NDArray[np.int64], steering: SteeringSetting) -> pd.DataFrame:
        """``output_score`` and ``delta_token_confidence`` of features."""
        prompt = prompt_tokens(PROMPT, self._inputs.model.tokenizer)
        return self._evaluator(steering).prompt_scores(features, prompt)

    def forget(self, steering: SteeringSetting) -> None:
        """Let go of an evaluator, which holds a copy of the unembedding."""
        self._evaluators.pop(steering, None)

    def _evaluator(self, steering: SteeringSetting) -> Evaluator:
        """The evaluator, by full passes where the resumed pass does not know the model or was shown
        to differ from them.
        """
        if steering not in self._evaluators:
            checked = self._store.run.manifest.evaluator
            self._evaluators[steering] = Evaluator(
                self._inputs.model,
                self._inputs.primary,
                self._inputs.downstream,
                self._statistics.panel(),
                steering,
                checked is not None and checked.method == "full",
            )
        return self._evaluators[steering]

    def checked_evaluator(
        self, plan: Plan, contexts: torch.Tensor, steering: SteeringSetting
    ) -> Evaluator:
        """The evaluator, after it has steered a few pairs as the model itself does.

        Raises:
            InputError: even by full forward passes the logits are not the model's own.

        """
        evaluator, known = self._evaluator(steering), self._store.run.manifest.evaluator
        if not evaluator.resumed and known is None:
            kind = self._inputs.model.config.model_type
            self._fall_back(f"the fast evaluator does not know models of type {kind!r}", None)
        push = steering.alpha * float(np.median(self.units(steering)[plan.features]))
        difference = evaluator.spot_check(plan, contexts, push, SPOT_CHECKS)
        if not difference < self._tolerance:
            told = f"{difference:.2g} of the largest change, expected less than {self._tolerance}"
            if not evaluator.resumed:
                raise InputError(
                    f"model {self._inputs.setting.model.name!r}: logits from its unembedding and its own "
                    f"differ by {told}; what would be measured is not what the model does; use another "
                    "model"
                )
            self._fall_back(f"fast and slow differ by {told}", difference)
            self._evaluators.clear()
            return self.checked_evaluator(plan, contexts, steering)
        self._record_check(evaluator, len(plan.features), difference)
        return evaluator

    @property
    def _tolerance(self) -> float:
        return SPOT_TOLERANCE[self._inputs.setting.model.dtype]

    def _record_check(self, evaluator: Evaluator, n_features: int, difference: float) -> None:
        known = self._store.run.manifest.evaluator
        if evaluator.resumed:
            largest = 0.0 if known is None else known.largest_difference or 0.0
            difference = max(largest, difference)
        elif known is not None and known.tolerance is not None:
            return  # by how much the fast evaluator was wrong stays told
        self._store.run.update(
            evaluator=SelfCheck(
                method="resumed" if evaluator.resumed else "full",
                reason=None if known is None else known.reason,
                pairs_compared=min(SPOT_CHECKS, n_features),
                largest_difference=difference,
                tolerance=self._tolerance,
            )
        )

    def _fall_back(self, reason: str, difference: float | None) -> None:
        self._reporter.warn(
            f"{reason}: features are steered by full forward passes, exact but much slower"
        )
        finite = difference is not None and np.isfinite(difference)
        self._store.run.update(
            evaluator=SelfCheck(
                method="full",
                reason=reason,
                largest_difference=difference if finite else None,
                tolerance=None if difference is None else self._tolerance,
            )
        )
