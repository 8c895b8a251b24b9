"""Drive the fast evaluator over a plan and turn pairs into labels."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
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
from .collateral import CollateralReader, Panel
from .families import blocks_of
from .interventions import INTERVENTIONS
from .parts import PairStore
from .rerun import FullForward
from .resume import ResumedForward
from .stability import stability_columns
from .visits import Visit, batches_of, parts_of
from .vocabulary import VocabularyReader

EPS = 1e-8
_WORK_ELEMENTS = {"cpu": 1 << 25}
_WORK_ELEMENTS_DEFAULT = 1 << 28
_MOST_QUERIES = 2048
_MOST_CONTEXTS = 64
_LABEL_ELEMENTS = 1 << 21
_PART_ELEMENTS = 1 << 22
_GRAM_BLOCK = 4096
_SMALLEST = 1e-12

PROMPT = "From my experience,"
"""The neutral prompt of arXiv:2505.20063's code and of arXiv:2510.03659, appendix D."""
PROMPT_STRENGTH = 10.0
PROMPT_QUERIES = 64
PROMPT_COLUMNS = ("output_score", "delta_token_confidence")
"""Columns of :meth:`Evaluator.prompt_scores`."""


class Evaluator:
    """Steers features and measures stability and collateral spread, by the resumed forward pass.

    Exact: its labels are those of a full forward pass for each feature and context, up to the
    rounding of floating-point numbers. For a family that the resumed pass does not know, or where
    ``full`` is given, it makes those full passes.
    """

    def __init__(
        self,
        model: LanguageModel,
        primary: Dictionary,
        downstream: Dictionary,
        panel: Panel,
        steering: SteeringSetting,
        full: bool = False,
    ) -> None:
        if downstream.site.order < primary.site.order:
            raise ValueError(
                f"downstream hook {downstream.site.hook} lies below {primary.site.hook}"
            )
        self._model = model
        self._primary = primary
        self._downstream = downstream
        self._steering = steering
        self._plain = FullForward(model, primary.site)
        blocks = None if full else blocks_of(model)
        self._forward: Any = (
            self._plain if blocks is None else ResumedForward(model, blocks, primary.site)
        )
        self._reader = CollateralReader(downstream, panel, steering.reconstruction_labels)
        self._unembedding = model.comparison_unembedding().T.contiguous()
        bias = model.unembedding_bias()
        if bias is not None and model.vocabulary_centred:
            bias = bias - bias.mean()
        self._vocabulary = VocabularyReader(self._unembedding, bias, model.soft_cap)
        # Where logits are linear, lengths and angles of their changes need no logits.
        self._gram = _gram_of(self._unembedding) if model.soft_cap is None else None
        self._reads_early = steering.vocabulary_labels and self._gram is not None
        self._measure_names = (
            *collateral.COLUMNS,
            *collateral.SUM_COLUMNS,
            *(vocabulary.COLUMNS if steering.vocabulary_labels else ()),
        )

    @property
    def resumed(self) -> bool:
        """Whether features are steered by the resumed pass, not by full forward passes."""
        return self._forward is not self._plain

    def evaluate(
        self,
        plan: Plan,
        contexts: Int[Tensor, "context token"],
        activations: scipy.sparse.csc_array,
        features: pd.DataFrame,
        c: float,
        folder: Path,
        progress: Callable[[int], object] = lambda done: None,
        directions: Float[Tensor, "feature width"] | None = None,
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
            directions: what is added in place of each feature's decoder row (controls).

        """
        intervention = INTERVENTIONS[self._steering.mode]
        quantiles = features.set_index("feature").loc[plan.features, "final_act_q95"].to_numpy()
        values = intervention.value(self._steering.alpha, c, quantiles)
        clean = _pair_activations(plan, activations)
        owners = np.repeat(np.arange(len(plan.features)), [len(u) for u in plan.union])
        deltas = intervention.delta(values[owners], clean)
        if directions is None:
            directions = self._primary.decoder[torch.as_tensor(plan.features)]
        work = self._work_id(plan, contexts, deltas, directions)
        store = PairStore(folder / work)
        for number, visits in enumerate(parts_of(plan, self._part_pairs())):
            if not store.has(number):
                pieces = list(self._measure_part(visits, contexts, directions, deltas))
                columns = [torch.cat(column) for column in zip(*pieces, strict=True)]
                store.write(number, *columns)
            progress(sum(len(visit.pairs) for visit in visits))
        table = self._labels(plan, store, values, clean)
        store.remove()
        return table

    @torch.no_grad()
    def spot_check(
        self, plan: Plan, contexts: Int[Tensor, "context token"], delta: float, count: int
    ) -> float:
        """Largest difference of fast and slow, relative to the largest change.

        ``count`` (feature, context) pairs, evenly spread over the plan, are steered by ``delta``
        times their decoder direction: once as :meth:`evaluate` does, once by a full forward pass
        of the bridge. Compared are the changes of the model's own logits and of what the
        downstream SAE reads. In bfloat16 the push is made as long as what it is added to at least:
        a small change would drown in the rounding of both.
        """
        chosen = np.unique(np.linspace(0, len(plan.features) - 1, count).astype(int))
        differences = [0.0]
        for index in chosen:
            tokens = contexts[[plan.union[index][0]]]
            push = delta * self._primary.decoder[int(plan.features[index])]
            frozen, clean = self._forward.freeze(tokens), self._plain.freeze(tokens)
            if self._model.dtype == torch.bfloat16:
                length = push.norm().clamp_min(_SMALLEST)
                push = push * (clean.final.norm() / length).clamp_min(1.0)
            output, tapped = self._forward.resume(
                _with_push(frozen.final, push), frozen, self._downstream.site
            )
            fast = self._vocabulary.logits(output.to(self._unembedding.dtype))
            _, slow_tapped, slow = self._plain.run(
                _with_push(clean.final, push), clean, self._downstream.site
            )
            slow = slow.to(fast.dtype)
            if self._model.vocabulary_centred:
                slow = slow - slow.mean(dim=-1, keepdim=True)
            pairs = ((fast, slow), (tapped.float(), slow_tapped.float()))
            for ours, theirs in pairs:
                change = theirs[0, 1] - theirs[0, 0]
                difference = (ours[0, 1] - ours[0, 0] - change).abs().max()
                differences.append(float(difference / change.abs().max().clamp_min(_SMALLEST)))
        return float(np.max(differences))  # NaN, where there is one

    @torch.no_grad()
    def prompt_scores(
        self,
        features: NDArray[np.int64],
        prompt: Int[Tensor, "1 token"],
        strength: float = PROMPT_STRENGTH,
    ) -> pd.DataFrame:
        """``output_score`` and ``delta_token_confidence`` of features, on one neutral prompt.

        The feature's direction, ``strength`` times the largest activation of any feature at the
        prompt's last token, is added there. With p' the next-token distribution then and p without
        it, l the 20 tokens that the direction itself promotes (its image under the final norm and
        the unembedding), and r(t) the rank of t under p' (0 is the likeliest): output_score =
        (1 - r/V) p'(t*), where t* in l has the best rank (on a neutral prompt the same without
        steering is next to nothing, and is not subtracted); delta_token_confidence = ln max p -
        ln max p' (negative: the steered distribution is sharper).

        Source: output score, arXiv:2505.20063, section 3.2; delta token confidence,
        arXiv:2510.03659, section 4.1 and appendix D (k = 1), with the other features left as they
        are.
        """
        frozen = self._forward.freeze(prompt)
        largest = float(self._primary.encode(frozen.final).max())
        rows = []
        for part in np.array_split(features, max(1, -(-len(features) // PROMPT_QUERIES))):
            directions = self._primary.decoder[torch.as_tensor(part)]
            queries = frozen.final[:, None].repeat(1, len(part) + 1, 1)
            queries[0, 1:] += (strength * largest * directions).to(queries.dtype)
            output, _ = self._forward.resume(queries, frozen, self._downstream.site)
            logits = self._vocabulary.logits(output[0].to(self._unembedding.dtype))
            chosen = self._model.promoted(self._model.to_stream(directions, self._primary.site))
            log_p = logits.log_softmax(dim=-1)
            best = log_p[1:].gather(1, chosen).amax(dim=1)
            rank = (log_p[1:] > best[:, None]).sum(dim=1)
            score = (1 - rank / log_p.shape[1]) * best.exp()
            peak = log_p.amax(dim=1)
            rows.append(torch.stack([score, peak[0] - peak[1:]], dim=1).double().cpu())
        table = pd.DataFrame(torch.cat(rows).numpy(), columns=list(PROMPT_COLUMNS))
        table.insert(0, "feature", features)
        return table

    def _measure_part(
        self,
        visits: list[Visit],
        contexts: Tensor,
        directions: Tensor,
        deltas: NDArray[np.float64],
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        most = self._most_contexts(contexts)
        for start in range(0, len(visits), most):
            frozen = visits[start : start + most]
            prefix = self._forward.freeze(contexts[[visit.context for visit in frozen]])
            for where, batch in batches_of(frozen, self._most_queries()):
                yield self._measure(batch, prefix.of(where), directions, deltas)

    def _measure(
        self,
        visits: list[Visit],
        prefix: Any,
        directions: Tensor,
        deltas: NDArray[np.float64],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Pair numbers, changes of the final norm's output, measures; contexts and their clean
        outputs.
        """
        device = self._model.device
        counts = [len(visit.pairs) for visit in visits]
        rows = torch.zeros(len(visits), max(counts), dtype=torch.long)
        strength = torch.zeros(len(visits), max(counts), dtype=torch.float64)
        real = torch.zeros(len(visits), max(counts), dtype=torch.bool)
        for i, visit in enumerate(visits):
            rows[i, : counts[i]] = torch.as_tensor(visit.features)
            strength[i, : counts[i]] = torch.as_tensor(deltas[visit.pairs])
            real[i, : counts[i]] = True
        pushes = directions[rows.to(directions.device)].to(device)
        pushes *= strength.to(pushes.dtype).to(device)[..., None]
        queries = prefix.final[:, None].repeat(1, max(counts) + 1, 1)
        queries[:, 1:] += pushes.to(queries.dtype)
        output, tapped = self._forward.resume(queries, prefix, self._downstream.site)
        output = output.to(self._unembedding.dtype)
        clean = output[:, 0]
        real = real.to(device)
        vectors = (output[:, 1:] - output[:, :1])[real]
        columns = [self._reader.measure(tapped)[real]]
        if self._reads_early:
            owners = torch.repeat_interleave(torch.tensor(counts)).to(device)
            columns.append(self._vocabulary.measure(vectors, clean, owners))
        return (
            torch.as_tensor(np.concatenate([visit.pairs for visit in visits])),
            vectors.cpu(),
            torch.cat(columns, dim=-1).cpu(),
            torch.tensor([visit.context for visit in visits]),
            clean.cpu(),
        )

    def _labels(
        self,
        plan: Plan,
        store: PairStore,
        values: NDArray[np.float64],
        clean: NDArray[np.float64],
    ) -> pd.DataFrame:
        """Pairs as rows of labels, block of features by block."""
        ends = np.cumsum([0, *(len(union) for union in plan.union)])
        starts = _label_blocks(ends, self._label_pairs())
        tables = []
        for number, (first, last) in enumerate(itertools.pairwise([*starts, len(plan.features)])):
            table = store.rows(number)
            if table is None:
                table = pd.DataFrame(
                    list(self._label_rows(plan, store, values, clean, ends, first, last))
                )
                store.write_rows(number, table)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def _label_rows(
        self,
        plan: Plan,
        store: PairStore,
        values: NDArray[np.float64],
        clean: NDArray[np.float64],
        ends: NDArray[np.int64],
        first: int,
        last: int,
    ) -> Iterator[dict[str, Any]]:
        vectors, measures = store.block(int(ends[first]), int(ends[last]))
        counts = np.diff(ends[first : last + 1])
        if self._gram is not None:
            grams = self._grams(vectors, self._gram.cpu(), counts)
        else:
            owners = torch.as_tensor(np.concatenate(plan.union[first:last]))
            columns, grams = self._capped_measures(vectors, owners, store, counts)
            measures = np.concatenate([measures, columns], axis=1)
        for index, gram in zip(range(first, last), grams, strict=True):
            pairs = slice(ends[index] - ends[first], ends[index + 1] - ends[first])
            inner = gram.numpy()
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

    @staticmethod
    def _grams(vectors: Tensor, gram: Tensor, counts: NDArray[np.int64]) -> Iterator[Tensor]:
        """D D^T of each feature's pairs where logits are linear: dy W W^T dy^T."""
        weighted = (vectors @ gram).double()
        exact = vectors.double()
        for ours, theirs in zip(
            weighted.split(counts.tolist()), exact.split(counts.tolist()), strict=True
        ):
            yield ours @ theirs.T

    def _capped_measures(
        self, vectors: Tensor, owners: Tensor, store: PairStore, counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], Iterator[Tensor]]:
        """What needs every logit where logits are soft-capped, features one after the other: the
        vocabulary's columns (none, if they are not asked for), and D D^T of each feature's pairs.
        """
        device = self._model.device
        there, owners = owners.unique(return_inverse=True)
        outputs = store.clean(there).to(device)
        pairs = (vectors.to(device), outputs, owners.to(device), counts.tolist())
        if not self._steering.vocabulary_labels:
            return np.empty((len(vectors), 0)), iter(self._vocabulary.grams(*pairs))
        columns, grams = self._vocabulary.measure_features(*pairs)
        return columns.cpu().double().numpy(), iter(grams)

    def _means(self, measures: NDArray[np.float64], effect: float) -> dict[str, float]:
        means = dict(zip(self._measure_names, measures.mean(axis=0).tolist(), strict=True))
        unexplained, square = (means.pop(name) for name in collateral.SUM_COLUMNS)
        if self._steering.reconstruction_labels:
            means["resid_explained"] = 1 - unexplained / square if square > 0 else 0.0
        means["collateral_per_effect"] = means["collateral_count_0.05"] / (effect + EPS)
        return means

    def _work_id(
        self, plan: Plan, contexts: Tensor, deltas: NDArray[np.float64], directions: Tensor
    ) -> str:
        digest = hashlib.sha256()
        digest.update(f"{self._steering.model_dump_json()}{self.resumed}".encode())
        digest.update(f"{self._primary.fingerprint}{self._downstream.fingerprint}".encode())
        digest.update(self._model.fingerprint.encode())
        digest.update(plan.features.tobytes() + np.concatenate(plan.union).tobytes())
        digest.update(contexts.numpy().tobytes() + deltas.tobytes())
        digest.update(directions.float().cpu().numpy().tobytes())
        for members in plan.members:
            for name, some in members.items():
                digest.update(name.encode() + some.tobytes())
        return f"work-{digest.hexdigest()[:16]}"

    def _elements(self) -> int:
        return _WORK_ELEMENTS.get(self._model.device.type, _WORK_ELEMENTS_DEFAULT)

    def _most_queries(self) -> int:
        widest = max(4 * self._model.width, self._reader.width)
        return max(16, min(_MOST_QUERIES, self._elements() // widest))

    def _most_contexts(self, contexts: Tensor) -> int:
        layers = self._model.n_layers - self._primary.site.layer
        size = contexts.shape[1] * self._model.width * 2 * max(1, layers)
        return max(1, min(_MOST_CONTEXTS, self._elements() // size))

    def _part_pairs(self) -> int:
        return max(_MOST_QUERIES, _PART_ELEMENTS // self._model.width)

    def _label_pairs(self) -> int:
        pairs = max(1, _LABEL_ELEMENTS // self._model.width)
        return pairs if self._gram is not None else min(pairs, self._vocabulary.most_queries)


def _with_push(final: Tensor, push: Tensor) -> Tensor:
    """Two queries for a context: the clean one and the steered one."""
    queries = final[:, None].repeat(1, 2, 1)
    queries[:, 1] += push.to(queries.dtype)
    return queries


def _label_blocks(ends: NDArray[np.int64], most_pairs: int) -> list[int]:
    """First features of blocks that hold up to ``most_pairs`` pairs, one feature at least."""
    starts = [0]
    for index in range(1, len(ends) - 1):
        if ends[index + 1] - ends[starts[-1]] > most_pairs:
            starts.append(index)
    return starts


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
