"""The fast evaluator on a tiny model, beside the slow oracle."""

from pathlib import Path

import numpy as np
import oracle
import pandas as pd
import pytest
import tiny
import torch
from cleansteer.core.settings import SteeringSetting
from cleansteer.features.sweep import measure_features
from cleansteer.steering_eval.choice import Plan, choose_contexts
from cleansteer.steering_eval.collateral import choose_panel
from cleansteer.steering_eval.evaluation import Evaluator

EXACT = 1e-8  # float64 against float64: only the order of sums differs
SINGLE = 1e-4  # the promise: float32 against the float64 oracle, on every column
CROSSINGS = 2  # entries that rounding may carry across a threshold, in all contexts of a row


class Bench:
    """A tiny model with its SAEs, clean activations and a plan, ready to evaluate.

    ``config`` changes both SAEs' configurations, ``steering`` the setting's section.
    """

    def __init__(
        self,
        architecture: str,
        dtype: torch.dtype,
        hooks: tuple[str, str] = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_post"),
        centred: bool = False,
        config: dict[str, object] | None = None,
        **steering: object,
    ) -> None:
        self.model = tiny.model(dtype)
        shape = {"dtype": dtype} | (config or {})
        self.primary = tiny.dictionary(architecture, self.model, hooks[0], centred, **shape)
        self.downstream = tiny.dictionary(
            architecture, self.model, hooks[1], centred, **shape, seed=2, n_features=80
        )
        self.contexts = tiny.contexts()
        strength = {"alpha": 0.7} if steering.get("mode", "add") == "add" else {}
        self.steering = SteeringSetting(
            **strength | {"contexts_per_type": 5, "panel_size": 60} | steering
        )
        measured = measure_features(
            self.model, self.primary, self.downstream, self.contexts, self.steering
        )
        self.features, self.activations = measured.table, measured.final_activations
        self.panel = choose_panel(measured.downstream, self.steering.panel_size)
        self.order = np.random.default_rng(0).permutation(len(self.contexts))
        self.c = 1.5

    def plan(self, features: list[int]) -> Plan:
        members = [
            choose_contexts(
                self.activations[:, [f]].toarray().ravel(),
                self.steering.contexts_per_type,
                self.order,
            )
            for f in features
        ]
        return Plan(np.array(features), list(members), [types["mixed"] for types in members])

    def evaluate(self, features: list[int], folder: Path) -> pd.DataFrame:
        evaluator = Evaluator(self.model, self.primary, self.downstream, self.panel, self.steering)
        return evaluator.evaluate(
            self.plan(features), self.contexts, self.activations, self.features, self.c, folder
        )

    def slow_row(self, row: pd.Series) -> dict[str, float]:
        feature = int(row["feature"])
        clean = self.activations[:, [feature]].toarray().ravel()
        chosen = oracle.choose_contexts(clean, self.steering.contexts_per_type, self.order)[
            row["context_type"]
        ]
        q95 = max(float(np.quantile(clean, 0.95)), 1.0)
        delta = {
            "add": np.full(len(chosen), self.steering.alpha * self.c),
            "clamp_global": self.c - clean[chosen],
            "clamp_q95": q95 - clean[chosen],
        }[self.steering.mode]
        return oracle.labels(
            **oracle.steer_slowly(
                self.model.bridge,
                self.primary.sae,
                self.downstream.sae,
                self.contexts[chosen],
                feature,
                torch.as_tensor(delta),
                hook=self.primary.site.hook,
                downstream_hook=self.downstream.site.hook,
                panel=self.panel.features.tolist(),
                centred=self.primary.centred,
                downstream_centred=self.downstream.centred,
                vocabulary_centred=self.model.vocabulary_centred,
            ),
            scales=self.panel.scales,
        )


def assert_equals_oracle(bench: Bench, table: pd.DataFrame, tolerance: float) -> None:
    compared = 0
    for _, row in table.iterrows():
        expected = bench.slow_row(row)
        crossing = 0.0 if tolerance == EXACT else CROSSINGS / row["n_contexts"]
        for name, value in expected.items():
            slack = 1e-12
            if name == "collateral_per_effect":
                slack += crossing / expected["effect_l2"]
            elif "count" in name or name == "anti_aligned_frac":
                slack += crossing
            assert row[name] == pytest.approx(value, rel=tolerance, abs=slack), (
                name,
                row["feature"],
            )
            compared += 1
    assert compared >= 34 * len(table)
