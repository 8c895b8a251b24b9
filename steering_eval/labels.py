"""Turning measured pairs into rows of labels: means over a feature's contexts, and stability."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ..core.models import LanguageModel
from ..core.settings import SteeringSetting
from . import collateral, vocabulary
from .choice import Plan
from .parts import PairStore
from .stability import measure_stability
from .vocabulary import VocabularyReader

EPS = 1e-8
_LABEL_ELEMENTS = 1 << 21


class Labeller:
    """Makes a row of labels for every feature and context type of a plan."""

    def __init__(
        self, model: LanguageModel, reader: VocabularyReader, steering: SteeringSetting
    ) -> None:
        self._device = model.device
        self._reader = reader
        self._steering = steering
        self._gram = reader.unembedding_gram() if reader.linear else None
        most = max(1, _LABEL_ELEMENTS // model.width)
        self._most_pairs = most if reader.linear else min(most, reader.most_queries)
        self._measures = (
            *collateral.COLUMNS,
            *collateral.SUM_COLUMNS,
            *(vocabulary.COLUMNS if steering.vocabulary_labels else ()),
        )

    def label(
        self,
        plan: Plan,
        store: PairStore,
        values: NDArray[np.float64],
        activations: NDArray[np.float64],
    ) -> pd.DataFrame:
        """The rows of a plan whose pairs are all in the store, block of features by block.

        Args:
            plan: which features were steered in which contexts.
            store: the measured pairs; finished blocks of rows are kept there too.
            values: the intervention value of each feature.
            activations: the clean activation of each pair's feature.

        """
        ends = np.cumsum([0, *(len(union) for union in plan.union)])
        starts = _block_starts(ends, self._most_pairs)
        tables = []
        for number, (first, last) in enumerate(itertools.pairwise([*starts, len(plan.features)])):
            table = store.rows(number)
            if table is None:
                rows = self._rows(plan, store, values, activations, ends, first, last)
                table = pd.DataFrame(list(rows))
                store.write_rows(number, table)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def _rows(
        self,
        plan: Plan,
        store: PairStore,
        values: NDArray[np.float64],
        activations: NDArray[np.float64],
        ends: NDArray[np.int64],
        first: int,
        last: int,
    ) -> Iterator[dict[str, int | float | str]]:
        vectors, measures = store.block(int(ends[first]), int(ends[last]))
        counts: list[int] = np.diff(ends[first : last + 1]).tolist()
        if self._gram is not None:
            grams = _linear_grams(vectors, self._gram, counts)
        else:
            owners = torch.as_tensor(np.concatenate(plan.union[first:last]))
            columns, grams = self._measure_capped(vectors, owners, store, counts)
            measures = np.concatenate([measures, columns], axis=1)
        for index, gram in zip(range(first, last), grams, strict=True):
            pairs = slice(ends[index] - ends[first], ends[index + 1] - ends[first])
            inner = gram.numpy()
            own = activations[ends[index] : ends[index + 1]]
            for name, members in plan.members[index].items():
                at = np.searchsorted(plan.union[index], members)
                measured = measure_stability(inner[None, *np.ix_(at, at)])
                stability = {column: float(value[0]) for column, value in measured.items()}
                yield {
                    "feature": int(plan.features[index]),
                    "mode": self._steering.mode,
                    "alpha": self._steering.strength,
                    "context_type": name,
                    "n_contexts": len(at),
                    "coefficient": float(values[index]),
                    "context_act_mean": float(own[at].mean()),
                    "context_act_max": float(own[at].max()),
                    **stability,
                    **self._means(measures[pairs][at], stability["effect_l2"]),
                }

    def _measure_capped(
        self,
        vectors: Float[Tensor, "pair d"],
        owners: Int[Tensor, " pair"],
        store: PairStore,
        counts: list[int],
    ) -> tuple[Float[np.ndarray, "pair column"], Iterator[Tensor]]:
        """What needs every logit where logits are soft-capped, features one after the other: the
        vocabulary's columns (none, if they are not asked for), and D D^T of each feature's pairs.
        """
        contexts, owners = owners.unique(return_inverse=True)
        outputs = store.clean(contexts).to(self._device)
        pairs = (vectors.to(self._device), outputs, owners.to(self._device), counts)
        if not self._steering.vocabulary_labels:
            return np.empty((len(vectors), 0)), iter(self._reader.grams(*pairs))
        columns, grams = self._reader.measure_features(*pairs)
        return columns.cpu().double().numpy(), iter(grams)

    def _means(self, measures: Float[np.ndarray, "pair column"], effect: float) -> dict[str, float]:
        means = dict(zip(self._measures, measures.mean(axis=0).tolist(), strict=True))
        unexplained, square = (means.pop(name) for name in collateral.SUM_COLUMNS)
        if self._steering.reconstruction_labels:
            means["resid_explained"] = 1 - unexplained / square if square > 0 else 0.0
        means["collateral_per_effect"] = means[collateral.PRIMARY] / (effect + EPS)
        means["collateral_relative_per_effect"] = means[collateral.RELATIVE] / (effect + EPS)
        return means


def _linear_grams(
    vectors: Float[Tensor, "pair d"], gram: Float[Tensor, "d d"], counts: list[int]
) -> Iterator[Tensor]:
    """D D^T of each feature's pairs where logits are linear: dy W W^T dy^T."""
    weighted = (vectors @ gram).double().split(counts)
    exact = vectors.double().split(counts)
    for ours, theirs in zip(weighted, exact, strict=True):
        yield ours @ theirs.T


def _block_starts(ends: NDArray[np.int64], most_pairs: int) -> list[int]:
    """First features of blocks that hold up to ``most_pairs`` pairs, one feature at least."""
    starts = [0]
    for index in range(1, len(ends) - 1):
        if ends[index + 1] - ends[starts[-1]] > most_pairs:
            starts.append(index)
    return starts
