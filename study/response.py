"""Linear response of a study's features, beside their other statistics."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.layout import FEATURES
from ..core.progress import Reporter
from ..features.response import PREFIX, Deltas, measure_response
from ..features.sweep import final_activations, token_texts
from ..predictor.model import clean_score, scheme_for
from ..steering_eval.choice import eligible_features, plan_all
from ..steering_eval.collateral import CollateralReader
from ..steering_eval.derivative import Differentiator, Jacobians
from ..steering_eval.evaluation import Evaluator
from ..steering_eval.interventions import INTERVENTIONS
from ..steering_eval.matching import matched_values
from .inputs import Inputs
from .statistics import Statistics
from .steering import SPOT_CHECKS, Steering
from .store import Store

PROMOTED, DEMOTED = "response_top_tokens", "response_bottom_tokens"


class Response:
    """All that is known of a feature before it is steered: its statistics, and its linear response
    where the setting asks for it.
    """

    def __init__(
        self,
        inputs: Inputs,
        store: Store,
        statistics: Statistics,
        steering: Steering,
        reporter: Reporter,
    ) -> None:
        self._inputs = inputs
        self._store = store
        self._statistics = statistics
        self._steering = steering
        self._reporter = reporter

    def table(self) -> pd.DataFrame:
        """A row for every feature: ``feature`` and the columns of docs/protocol.md."""
        features = self._statistics.table()
        if not self._inputs.setting.steering.response or DEMOTED in features:
            return features
        run = self._store.run
        run.write_table(FEATURES, features.merge(self._measure(features), on="feature"))
        return run.table(FEATURES)

    def jacobians(
        self, progress: Callable[[int], object]
    ) -> tuple[list[Jacobians], Evaluator, CollateralReader]:
        """Those of every response context, by an evaluator that was checked, and what reads the tap.

        ``progress`` is called with the number of contexts done.
        """
        inputs, store, steering = self._inputs, self._store, self._inputs.setting.steering
        reference = self._statistics.reference()
        contexts = store.response_contexts(inputs)
        store.check_inputs(inputs)
        plan = plan_all(reference[:SPOT_CHECKS], len(contexts))
        evaluator = self._steering.checked_evaluator(plan, contexts, steering)
        if not evaluator.resumed:
            n_passes = len(contexts) * inputs.primary.decoder.shape[1]
            self._reporter.warn(
                f"linear response takes {n_passes:,} full forward passes of this model; response = "
                "false in [steering] leaves it out"
            )
        found = []
        for each in Differentiator(evaluator.forward, inputs.downstream.site).jacobians(contexts):
            found.append(each)
            progress(1)
        panel = self._statistics.panel()
        return found, evaluator, CollateralReader(inputs.downstream, panel, reconstruction=False)

    def _measure(self, features: pd.DataFrame) -> pd.DataFrame:
        inputs, store, steering = self._inputs, self._store, self._inputs.setting.steering
        contexts = store.response_contexts(inputs)
        bar = self._reporter.bar("linear response", len(contexts) + len(features))
        with store.run.timed("response"), bar as progress:
            jacobians, evaluator, reader = self.jacobians(progress)
            columns, tokens = measure_response(
                jacobians,
                inputs.primary.decoder,
                self._deltas(features, contexts),
                reader,
                evaluator.vocabulary,
                progress,
            )
        table = pd.DataFrame({"feature": np.arange(len(features))} | columns)
        table[f"{PREFIX}clean_score"] = clean_score(
            table.rename(columns=lambda name: name.removeprefix(PREFIX)),
            among=eligible_features(features),
            scheme=scheme_for(steering.collateral, steering.mode),
        )
        table[PROMOTED] = token_texts(inputs.model, tokens[:, 0].tolist())
        table[DEMOTED] = token_texts(inputs.model, tokens[:, 1].tolist())
        return table

    def _deltas(self, features: pd.DataFrame, contexts: Tensor) -> Deltas:
        """What each feature is pushed by in each context; in mode ``matched``, by the coefficient that
        it is forecast to need.
        """
        inputs, steering = self._inputs, self._inputs.setting.steering
        intervention = INTERVENTIONS[steering.mode]
        matched, lengths = steering.mode == "matched", self._steering.residual_units()
        units = lengths if matched else self._steering.units(steering)
        quantiles = features["final_act_q95"].to_numpy()
        activations = final_activations(inputs.model, inputs.primary, contexts)

        def deltas(block: slice, curvatures: NDArray[np.float64]) -> Tensor:
            unit = units[block]
            if matched:
                unit = matched_values(curvatures, steering.strength, unit)
            values = intervention.value(steering.alpha, unit, quantiles[block])
            own = activations[:, block].toarray().T.astype(np.float64)
            pushed: NDArray[np.float64] = intervention.delta(values[:, None], own)
            return torch.as_tensor(np.broadcast_to(pushed, own.shape).copy())

        return deltas
