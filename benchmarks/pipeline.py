"""The main road: contexts, statistics, labels, predictor, fresh check, ranking, allowlist."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from numpy.typing import NDArray

from ..core.contexts import build_contexts
from ..core.errors import InputError
from ..core.models import LanguageModel, load_model
from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.saes import Dictionary, load_dictionary
from ..core.settings import Setting, SteeringSetting
from ..core.tables import write_json
from ..core.texts import read_texts
from ..features.sweep import final_activations, measure_features
from ..predictor.models import ModularityPredictor
from ..predictor.ranking import make_allowlist, rank_features
from ..predictor.screening import Groups, choose_groups, compare_groups, trust
from ..predictor.sets import predictor_sets
from ..predictor.targets import primary_labels
from ..predictor.validation import Validation, validate
from ..steering_eval.choice import (
    Plan,
    eligible_features,
    plan_all,
    plan_typed,
    sample_features,
)
from ..steering_eval.collateral import choose_panel
from ..steering_eval.evaluation import Evaluator
from ..steering_eval.interventions import global_value

CONTEXTS = "contexts.safetensors"
FRESH_CONTEXTS = "fresh_contexts.safetensors"
FEATURES = "features.parquet"
ACTIVATIONS = "final_activations.parquet"
DOWNSTREAM = "downstream.parquet"
LABELS = "labels.parquet"
FRESH_LABELS = "fresh_labels.parquet"
PREDICTOR = "predictor"
RANKING = "ranking.parquet"
SCREENING = "screening.json"
ALLOWLIST = "allowlist.json"
SCREENING_FORMAT = "cleansteer-screening/1"

LABEL_KEYS = ["feature", "mode", "alpha", "context_type"]
DEFAULT_TOP = 100
SPOT_CHECKS = 3
SPOT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}
"""Largest difference of fast and slow logit changes, relative to the largest change: rounding."""


class Pipeline:
    """The stages of a run; each reads its piece from the run directory or makes it."""

    def __init__(
        self, setting: Setting, run: RunDirectory, reporter: Reporter, device: str = "cpu"
    ) -> None:
        self.setting = setting
        self.run = run
        self._reporter = reporter
        self._device = device

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
        built = {}
        if CONTEXTS in missing:
            built[CONTEXTS] = build_contexts(self.setting, corpus, tokenizer)
        if FRESH_CONTEXTS in missing:
            known = set(read_texts(self.setting, corpus))
            built[FRESH_CONTEXTS] = build_contexts(self.setting, heldout, tokenizer, known)
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
            self.run.record(
                mean_l0={"sae": measured.mean_l0, "downstream_sae": measured.downstream_mean_l0},
                n_eligible=len(eligible_features(measured.table)),
            )
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
        table = self.run.table(LABELS, tuple(LABEL_KEYS)) if self.run.has(LABELS) else None
        if table is not None:
            same = (table["mode"] == steering.mode) & (table["alpha"] == steering.alpha)
            wanted = np.setdiff1d(wanted, table.loc[same, "feature"])
        if len(wanted):
            self._record_sources()
            contexts = self.run.tokens(CONTEXTS)
            activations = self._activations(len(contexts))
            plan = plan_typed(wanted, activations, self.setting)
            new = self._evaluate(plan, contexts, activations, steering, "labels", "steering")
            table = new if table is None else pd.concat([table, new], ignore_index=True)
            table = table.sort_values(LABEL_KEYS, kind="stable", ignore_index=True)
            self.run.write_table(LABELS, table)
        assert table is not None
        return table[(table["mode"] == steering.mode) & (table["alpha"] == steering.alpha)]

    def _activations(self, n_contexts: int) -> scipy.sparse.csc_array:
        table = self.run.table(ACTIVATIONS, ("context", "feature", "activation"))
        return scipy.sparse.csc_array(
            (table["activation"], (table["context"], table["feature"])),
            shape=(n_contexts, self.primary.n_features),
        )

    def _evaluate(
        self,
        plan: Plan,
        contexts: torch.Tensor,
        activations: scipy.sparse.csc_array,
        steering: SteeringSetting,
        stage: str,
        description: str,
    ) -> pd.DataFrame:
        statistics = self.features()
        panel = choose_panel(self.run.table(DOWNSTREAM), steering.panel_size)
        c = global_value(statistics, self.sampled())
        evaluator = Evaluator(self.model, self.primary, self.downstream, panel, steering)
        difference = evaluator.spot_check(plan, contexts, c * steering.alpha, SPOT_CHECKS)
        if not difference < SPOT_TOLERANCE[self.setting.model.dtype]:
            raise InputError(
                f"the fast evaluator differs from a full forward pass by {difference:.2g} of the "
                f"largest logit change, expected less than "
                f"{SPOT_TOLERANCE[self.setting.model.dtype]}; this model's variant of its family is "
                "not supported, use another model"
            )
        with (
            self.run.timed(stage),
            self._reporter.bar(description, plan.n_pairs) as progress,
        ):
            table = evaluator.evaluate(
                plan, contexts, activations, statistics, c, self.run.path / "unfinished", progress
            )
        self.run.record(
            global_value=c,
            n_pairs={stage: plan.n_pairs},
            largest_fast_slow_difference={stage: difference},
        )
        (self.run.path / "unfinished").rmdir()
        return table

    def _labelled(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Statistics and labels of the labelled features, row by row."""
        labels = primary_labels(self.labels())
        statistics = self.features().set_index("feature")
        names = predictor_sets(statistics.columns)["full_all"]
        return statistics.loc[labels.index, names], labels

    def fit(self) -> tuple[ModularityPredictor, Validation]:
        """Fit the predictor on all labels, cross-validate it, and save it."""
        statistics, labels = self._labelled()
        with self.run.timed("fit"):
            validation = validate(statistics, labels, self.setting.seed)
            predictor = ModularityPredictor(seed=self.setting.seed).fit(statistics, labels)
        predictor.save(self.run.path / PREDICTOR)
        return predictor, validation

    def fresh_labels(self, groups: Groups) -> pd.DataFrame:
        """Labels of the groups' features on every fresh context, indexed by feature."""
        features = np.sort(np.concatenate(list(groups.features.values())))
        if self.run.has(FRESH_LABELS):
            table = self.run.table(FRESH_LABELS, ("feature", "n_contexts"))
            if np.array_equal(np.sort(table["feature"]), features):
                return table.set_index("feature")
        self.prepare(FRESH_CONTEXTS)
        self._record_sources()
        contexts = self.run.tokens(FRESH_CONTEXTS)
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

    def rank(self) -> pd.DataFrame:
        """Fit, and rank every feature of the dictionary."""
        statistics = self.features()
        predictor, validation = self.fit()
        return self._write_ranking(statistics, predictor, validation)

    def _write_ranking(
        self, statistics: pd.DataFrame, predictor: ModularityPredictor, validation: Validation
    ) -> pd.DataFrame:
        _, labels = self._labelled()
        eligible = set(eligible_features(statistics).tolist())
        ranking = rank_features(statistics, labels, predictor, validation, eligible)
        self.run.write_table(RANKING, ranking)
        return ranking

    def screen(self, top: int = DEFAULT_TOP) -> dict[str, Any]:
        """Everything; returns what ``screening.json`` holds."""
        self.prepare(CONTEXTS, FRESH_CONTEXTS)
        features = self.features()
        statistics, labels = self._labelled()
        groups = choose_groups(statistics, labels, self.setting.seed)
        predictor, validation = self.fit()
        check = compare_groups(groups, self.fresh_labels(groups), self.setting.seed)
        ranking = self._write_ranking(features, predictor, validation)
        screening = {
            "format": SCREENING_FORMAT,
            "setting": self.setting.name,
            "setting_fingerprint": self.setting.fingerprint,
            "n_features": len(features),
            "n_eligible": int(ranking["eligible"].sum()),
            "n_labelled": len(labels),
            "coefficient": float(labels["coefficient"].median()),
            "mean_l0": self.run.manifest["mean_l0"],
            "skill": {target: skill.to_json() for target, skill in validation.skills.items()},
            "fresh_check": check.to_json(),
            "trust": trust(validation.skills, check),
        }
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
        source = self.setting.sae.model_dump(include={"release", "id", "path"}, exclude_none=True)
        allowlist = make_allowlist(
            ranking,
            setting=self.setting.name,
            hook=self.run.manifest["hooks"]["sae"],
            sae=source | {"fingerprint": self.run.manifest["fingerprints"]["sae"]},
            trust=verdict,
            top=top,
            min_score=min_score,
        )
        path = path or self.run.path / ALLOWLIST
        write_json(path, allowlist)
        return allowlist, path


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
