"""Statistics of every feature of a study's dictionary, and what is chosen by them."""

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.layout import ACTIVATIONS, DOWNSTREAM, EXAMPLES, FEATURES, TOKENS
from ..core.progress import Reporter
from ..core.records import PerSae
from ..features.examples import token_pieces
from ..features.sweep import measure_features
from ..steering_eval.choice import eligible_features, sample_features, some_eligible
from ..steering_eval.collateral import CollateralPanel, choose_panel
from .inputs import Inputs
from .published import deviations, published_for
from .store import Store


class Statistics:
    """The feature table of a study, measured in one pass over its contexts where it is missing."""

    def __init__(self, inputs: Inputs, store: Store, reporter: Reporter) -> None:
        self._inputs = inputs
        self._store = store
        self._reporter = reporter

    def table(self) -> pd.DataFrame:
        """A row for every feature: ``feature`` and the columns of docs/protocol.md."""
        run = self._store.run
        if not all(run.has(name) for name in (FEATURES, ACTIVATIONS, DOWNSTREAM)):
            self._measure()
        return run.table(FEATURES, ("feature", "final_act_freq", "final_act_q95"))

    def _measure(self) -> None:
        inputs, run = self._inputs, self._store.run
        contexts = self._store.contexts(inputs)
        self._store.check_inputs(inputs)
        with (
            run.timed("features"),
            self._reporter.bar("statistics", len(contexts)) as progress,
        ):
            measured = measure_features(
                inputs.model,
                inputs.primary,
                inputs.downstream,
                contexts,
                inputs.setting.steering,
                progress,
                inputs.setting.seed,
            )
        mean_l0 = PerSae[float](sae=measured.mean_l0, downstream_sae=measured.downstream_mean_l0)
        n_eligible = len(eligible_features(measured.table))
        published = published_for(inputs.setting)
        warnings = [] if published is None else deviations(published, mean_l0, n_eligible)
        for warning in warnings:
            self._reporter.warn(warning)
        run.update(
            mean_l0=mean_l0,
            n_eligible=n_eligible,
            warnings=warnings,
            residual_norm=measured.residual_norm,
        )
        run.write_table(ACTIVATIONS, _long(measured.final_activations))
        run.write_table(DOWNSTREAM, measured.downstream)
        run.write_table(EXAMPLES, measured.examples)
        pieces = token_pieces(contexts, inputs.model.tokenizer)
        run.write_table(TOKENS, pd.DataFrame({"context": range(len(pieces)), "tokens": pieces}))
        run.write_table(FEATURES, measured.table)

    def first_round(self) -> NDArray[np.int64]:
        """The features that are labelled first: the whole sample, or its first round where the
        setting samples in two.

        The global value c is theirs, so that the labels of both rounds are comparable.
        """
        return sample_features(self.table(), self._inputs.setting)

    def reference(self) -> NDArray[np.int64]:
        """The features that the global value c is taken over, in rising order: those that are labelled
        first, or all eligible ones where the setting labels none.
        """
        setting = self._inputs.setting
        if setting.steering.n_features != 0:
            return self.first_round()
        return np.sort(some_eligible(self.table(), setting.name))

    def activations(self, n_contexts: int) -> scipy.sparse.csc_array:
        """The steered SAE's activations at the contexts' final tokens, ``[context, feature]``."""
        table = self._store.run.table(ACTIVATIONS, ("context", "feature", "activation"))
        return scipy.sparse.csc_array(
            (table["activation"], (table["context"], table["feature"])),
            shape=(n_contexts, self._inputs.primary.n_features),
        )

    def panel(self) -> CollateralPanel:
        """The downstream features in which collateral is counted."""
        self.table()
        return choose_panel(
            self._store.run.table(DOWNSTREAM, ("feature", "final_act_freq", "final_firing_median")),
            self._inputs.setting.steering.panel_size,
        )

    def residual_norm(self) -> float:
        """Median norm of what stands at the steered hook, BOS aside.

        Raises:
            InputError: an earlier version measured the statistics, and did not keep it.

        """
        self.table()
        norm = self._store.run.manifest.residual_norm
        if norm is None:
            raise InputError(
                f"run {self._store.run.path} was made by an earlier version, which did not measure the "
                "residual stream's norm; screen anew (--overwrite), or give another --run"
            )
        return norm


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
