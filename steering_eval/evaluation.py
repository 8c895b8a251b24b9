"""Drive the fast evaluator over a plan and turn pairs into labels."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ..core.models import LanguageModel
from ..core.saes import Dictionary
from ..core.settings import SteeringSetting
from . import collateral, vocabulary
from .choice import Plan
from .collateral import CollateralReader
from .interventions import INTERVENTIONS
from .parts import PairStore
from .resume import Prefix, ResumedForward
from .stability import stability_columns
from .vocabulary import VocabularyReader

EPS = 1e-8
_WORK_ELEMENTS = {"cpu": 1 << 25}
_WORK_ELEMENTS_DEFAULT = 1 << 28
_MOST_QUERIES = 2048
_MOST_CONTEXTS = 64
_LABEL_BLOCK = 64
_PART_ELEMENTS = 1 << 24
_GRAM_BLOCK = 4096
_SMALLEST_CHANGE = 1e-12


@dataclass(frozen=True)
class Visit:
    """Some features steered in one context."""

    context: int
    features: NDArray[np.int64]
    """Positions in the plan's features."""
    pairs: NDArray[np.int64]
    """Numbers of the pairs, feature after feature."""


class Evaluator:
    """Steers features and measures stability and collateral spread, by the resumed forward pass.

    Exact: its labels are those of a full forward pass for each feature and context, up to the
    rounding of floating-point numbers.
    """

    def __init__(
        self,
        model: LanguageModel,
        primary: Dictionary,
        downstream: Dictionary,
        panel: NDArray[np.int64],
        steering: SteeringSetting,
    ) -> None:
        if downstream.site.boundary < primary.site.boundary:
            raise ValueError(
                f"downstream hook {downstream.site.hook} lies below {primary.site.hook}"
            )
        self._model = model
        self._primary = primary
        self._downstream = downstream
        self._steering = steering
        self._forward = ResumedForward(model, primary.site)
        self._reader = CollateralReader(downstream, panel, steering.reconstruction_labels)
        self._unembedding = model.comparison_unembedding().T.contiguous()
        self._gram = _gram_of(self._unembedding)
        self._vocabulary = (
            VocabularyReader(self._unembedding) if steering.vocabulary_labels else None
        )
        self._measure_names = (
            *collateral.COLUMNS,
            *collateral.SUM_COLUMNS,
            *(vocabulary.COLUMNS if steering.vocabulary_labels else ()),
        )

    def evaluate(
        self,
        plan: Plan,
        contexts: Int[Tensor, "context token"],
        activations: scipy.sparse.csc_array,
        features: pd.DataFrame,
        c: float,
        folder: Path,
        progress: Callable[[int], object] = lambda done: None,
    ) -> pd.DataFrame:
        """Labels of a plan: a row per feature and context type.

        Args:
            plan: which features are steered in which contexts.
            contexts: token ids, ``[context, token]``.
            activations: the steered SAE's final activations in these contexts,
                ``[context, feature]``.
            features: the feature table (for final_act_q95).
            c: the global value of protocol.md.
            folder: where finished parts are kept until the labels are whole; parts of the same work
                that are found there are not computed again.
            progress: called with the number of pairs finished.

        """
        intervention = INTERVENTIONS[self._steering.mode]
        quantiles = features.set_index("feature").loc[plan.features, "final_act_q95"].to_numpy()
        values = intervention.value(self._steering.alpha, c, quantiles)
        clean = _pair_activations(plan, activations)
        owners = np.repeat(np.arange(len(plan.features)), [len(u) for u in plan.union])
        deltas = intervention.delta(values[owners], clean)
        store = PairStore(folder / self._work_id(plan, contexts, deltas), plan.n_pairs)
        for number, visits in enumerate(_parts(plan, self._part_pairs())):
            if not store.has(number):
                pieces = list(self._measure_part(visits, contexts, plan, deltas))
                pairs, vectors, measures = (
                    torch.cat(column) for column in zip(*pieces, strict=True)
                )
                store.write(number, pairs, vectors, measures)
            progress(sum(len(visit.pairs) for visit in visits))
        table = pd.DataFrame(list(self._label_rows(plan, store, values, clean)))
        store.remove()
        return table

    @torch.no_grad()
    def spot_check(
        self, plan: Plan, contexts: Int[Tensor, "context token"], delta: float, count: int
    ) -> float:
        """Largest difference of fast and slow logit changes, relative to the largest change.

        ``count`` (feature, context) pairs, evenly spread over the plan, are steered by ``delta``
        times their decoder direction: once by the resumed pass, once by a full forward pass of the
        bridge with a hook.
        """
        chosen = np.unique(np.linspace(0, len(plan.features) - 1, count).astype(int))
        largest = difference = 0.0
        for index in chosen:
            tokens = contexts[[plan.union[index][0]]]
            push = delta * self._primary.decoder[int(plan.features[index])]
            prefix = self._forward.freeze(tokens)
            queries = prefix.final[:, None].repeat(1, 2, 1)
            queries[:, 1] += push.to(queries.dtype)
            output, _ = self._forward.resume(queries, prefix, self._downstream.site)
            output = output.to(self._unembedding.dtype)
            fast = ((output[0, 1] - output[0, 0]) @ self._unembedding.T).float()
            slow = self._slow_change(tokens, push)
            largest = max(largest, float(slow.abs().max()))
            difference = max(difference, float((fast - slow).abs().max()))
        return difference / max(largest, _SMALLEST_CHANGE)

    def _slow_change(self, tokens: Tensor, push: Tensor) -> Tensor:
        def steer(residual: Tensor, hook: object) -> Tensor:
            steered = residual.clone()
            steered[:, -1] += push.to(residual.dtype)
            return steered

        hooks = [(self._primary.site.hook, steer)]
        tokens = tokens.to(self._model.device)
        steered = self._model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1].float()
        change: Tensor = steered - self._model.bridge(tokens)[0, -1].float()
        if self._model.vocabulary_centred:
            change = change - change.mean()
        return change

    def _measure_part(
        self, visits: list[Visit], contexts: Tensor, plan: Plan, deltas: NDArray[np.float64]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        most = self._most_contexts(contexts)
        for start in range(0, len(visits), most):
            frozen = visits[start : start + most]
            prefix = self._forward.freeze(contexts[[visit.context for visit in frozen]])
            for where, batch in _batches(frozen, self._most_queries()):
                yield self._measure(batch, prefix.of(where), plan, deltas)

    def _measure(
        self, visits: list[Visit], prefix: Prefix, plan: Plan, deltas: NDArray[np.float64]
    ) -> tuple[Tensor, Tensor, Tensor]:
        device = self._model.device
        longest = max(len(visit.pairs) for visit in visits)
        rows = torch.zeros(len(visits), longest, dtype=torch.long)
        strength = torch.zeros(len(visits), longest, dtype=torch.float64)
        real = torch.zeros(len(visits), longest, dtype=torch.bool)
        for i, visit in enumerate(visits):
            count = len(visit.pairs)
            rows[i, :count] = torch.as_tensor(plan.features[visit.features])
            strength[i, :count] = torch.as_tensor(deltas[visit.pairs])
            real[i, :count] = True
        dtype = prefix.final.dtype
        directions = self._primary.decoder[rows.to(device)]
        pushes = strength.to(directions.dtype).to(device)[..., None] * directions
        queries = prefix.final[:, None].repeat(1, longest + 1, 1)
        queries[:, 1:] += pushes.to(dtype)
        output, tapped = self._forward.resume(queries, prefix, self._downstream.site)
        output = output.to(self._unembedding.dtype)
        moved = output[:, 1:] - output[:, :1]
        real = real.to(device)
        columns = [self._reader.measure(tapped)[real]]
        vectors = moved[real]
        if self._vocabulary is not None:
            counts = [len(visit.pairs) for visit in visits]
            columns.append(self._vocabulary.measure(vectors, output[:, 0], counts))
        return (
            torch.as_tensor(np.concatenate([visit.pairs for visit in visits])),
            vectors.cpu(),
            torch.cat(columns, dim=-1).cpu(),
        )

    def _label_rows(
        self,
        plan: Plan,
        store: PairStore,
        values: NDArray[np.float64],
        clean: NDArray[np.float64],
    ) -> Iterator[dict[str, Any]]:
        ends = np.cumsum([0, *(len(union) for union in plan.union)])
        gram = self._gram.cpu()
        starts = range(0, len(plan.features), _LABEL_BLOCK)
        boundaries = [int(ends[i]) for i in starts] + [plan.n_pairs]
        for first, (vectors, measures) in zip(starts, store.blocks(boundaries), strict=True):
            weighted = vectors @ gram
            for index in range(first, min(first + _LABEL_BLOCK, len(plan.features))):
                pairs = slice(ends[index] - ends[first], ends[index + 1] - ends[first])
                inner = (weighted[pairs].double() @ vectors[pairs].double().T).numpy()
                activations = clean[ends[index] : ends[index + 1]]
                for name, members in plan.members[index].items():
                    at = np.searchsorted(plan.union[index], members)
                    row: dict[str, Any] = {
                        "feature": int(plan.features[index]),
                        "mode": self._steering.mode,
                        "alpha": self._steering.alpha,
                        "context_type": name,
                        "n_contexts": len(at),
                        "coefficient": float(values[index]),
                        "context_act_mean": float(activations[at].mean()),
                        "context_act_max": float(activations[at].max()),
                        **stability_columns(inner[np.ix_(at, at)]),
                    }
                    yield row | self._means(measures[pairs][at], row["effect_l2"])

    def _means(self, measures: NDArray[np.float64], effect: float) -> dict[str, float]:
        means = dict(zip(self._measure_names, measures.mean(axis=0).tolist(), strict=True))
        unexplained, square = (means.pop(name) for name in collateral.SUM_COLUMNS)
        if self._steering.reconstruction_labels:
            means["resid_explained"] = 1 - unexplained / square if square > 0 else 0.0
        means["collateral_per_effect"] = means["collateral_count_0.05"] / (effect + EPS)
        return means

    def _work_id(self, plan: Plan, contexts: Tensor, deltas: NDArray[np.float64]) -> str:
        digest = hashlib.sha256()
        digest.update(self._steering.model_dump_json().encode())
        digest.update(f"{self._primary.fingerprint}{self._downstream.fingerprint}".encode())
        digest.update(self._model.fingerprint.encode())
        digest.update(plan.features.tobytes() + np.concatenate(plan.union).tobytes())
        digest.update(contexts.numpy().tobytes() + deltas.tobytes())
        return f"work-{digest.hexdigest()[:16]}"

    def _most_queries(self) -> int:
        elements = _WORK_ELEMENTS.get(self._model.device.type, _WORK_ELEMENTS_DEFAULT)
        widest = max(4 * self._model.width, self._downstream.n_features)
        return max(16, min(_MOST_QUERIES, elements // widest))

    def _most_contexts(self, contexts: Tensor) -> int:
        elements = _WORK_ELEMENTS.get(self._model.device.type, _WORK_ELEMENTS_DEFAULT)
        layers = self._model.n_layers - self._primary.site.boundary
        size = contexts.shape[1] * self._model.width * 2 * max(1, layers)
        return max(1, min(_MOST_CONTEXTS, elements // size))

    def _part_pairs(self) -> int:
        return max(_MOST_QUERIES, _PART_ELEMENTS // self._model.width)


def _gram_of(unembedding: Float[Tensor, "vocab d"]) -> Float[Tensor, "d d"]:
    """W W^T, accumulated block by block in float64."""
    width = unembedding.shape[1]
    total = torch.zeros(width, width, dtype=torch.float64)
    for block in unembedding.split(_GRAM_BLOCK):
        total += (block.T @ block).cpu().double()
    return total.to(unembedding.dtype)


def _pair_activations(plan: Plan, activations: scipy.sparse.csc_array) -> NDArray[np.float64]:
    columns = [
        activations[:, [feature]].toarray().ravel()[union]
        for feature, union in zip(plan.features, plan.union, strict=True)
    ]
    return np.concatenate(columns).astype(np.float64)


def _parts(plan: Plan, most_pairs: int) -> Iterator[list[Visit]]:
    """The plan's pairs by context, busiest contexts first, in parts of about ``most_pairs``."""
    owners = np.repeat(np.arange(len(plan.features)), [len(u) for u in plan.union])
    where = np.concatenate(plan.union)
    counts = np.bincount(where)
    order = np.lexsort((np.arange(len(where)), where, -counts[where]))
    starts = np.flatnonzero(np.diff(where[order], prepend=-1))
    part: list[Visit] = []
    size = 0
    for pairs in np.split(order, starts[1:]):
        part.append(Visit(int(where[pairs[0]]), owners[pairs], pairs))
        size += len(pairs)
        if size >= most_pairs:
            yield part
            part, size = [], 0
    if part:
        yield part


def _batches(visits: list[Visit], most_queries: int) -> Iterator[tuple[slice, list[Visit]]]:
    """Visits of similar length together, so that padding them to the longest wastes little.

    Yields the place of their contexts among ``visits``, and the visits; a visit of more features
    than ``most_queries`` comes in pieces.
    """
    start = 0
    while start < len(visits):
        longest = len(visits[start].pairs)
        if longest >= most_queries:
            whole = visits[start]
            for first in range(0, longest, most_queries):
                cut = slice(first, first + most_queries)
                piece = Visit(whole.context, whole.features[cut], whole.pairs[cut])
                yield slice(start, start + 1), [piece]
            start += 1
            continue
        end = start + 1
        while end < len(visits):
            longest = max(longest, len(visits[end].pairs))
            if (end + 1 - start) * (longest + 1) > most_queries:
                break
            end += 1
        yield slice(start, end), visits[start:end]
        start = end
