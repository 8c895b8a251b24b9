"""Measuring pairs of a feature and a context: steer them in batches, read what moved."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ..core.models import LanguageModel
from ..core.sites import Site
from .collateral import CollateralReader
from .forward import ForwardPass, Prefix, push_queries
from .parts import MeasuredPairs
from .visits import Visit, split_visits
from .vocabulary import COLUMNS, VocabularyReader

_KL = COLUMNS.index("kl_clean_steered")
_WORK_ELEMENTS = {"cpu": 1 << 25}
_WORK_ELEMENTS_DEFAULT = 1 << 28
_MOST_QUERIES = 2048
_MOST_CONTEXTS = 64
_PART_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class _Steered:
    """Some pairs, steered together."""

    pairs: NDArray[np.int64]
    """Their numbers in the plan."""
    owners: Int[Tensor, " pair"]
    """Which of the contexts each belongs to."""
    real: Bool[Tensor, "context query"]
    """Which queries are pairs; the others fill up."""
    moved: Float[Tensor, "pair d"]
    """Change of the final norm's output."""
    clean: Float[Tensor, "context d"]
    """The final norm's clean output."""
    tapped: Float[Tensor, "context query+1 tap"]
    """What stands at the tap, the clean query first."""


class PairMeasurer:
    """Steers features in contexts and measures each pair, a bounded number at once.

    Args:
        model: the model.
        forward: its forward pass, steered at ``site``.
        site: where features are steered.
        tap: where the downstream SAE reads.
        collateral: measures what stands at the tap.
        vocabulary: reads outputs of the final norm.
        measure_logits: whether the vocabulary's columns are measured here too.

    """

    def __init__(
        self,
        model: LanguageModel,
        forward: ForwardPass,
        site: Site,
        tap: Site,
        collateral: CollateralReader,
        vocabulary: VocabularyReader,
        measure_logits: bool,
    ) -> None:
        self._model = model
        self._forward = forward
        self._site = site
        self._tap = tap
        self._collateral = collateral
        self._vocabulary = vocabulary
        self._measure_logits = measure_logits

    @property
    def pairs_at_once(self) -> int:
        """About how many pairs are worth keeping in one part."""
        return max(_MOST_QUERIES, _PART_ELEMENTS // self._model.width)

    def measure(
        self,
        visits: list[Visit],
        contexts: Int[Tensor, "context token"],
        directions: Float[Tensor, "feature width"],
        deltas: NDArray[np.float64],
    ) -> MeasuredPairs:
        """Measure the pairs of some visits.

        Args:
            visits: which features are steered in which contexts.
            contexts: token ids of all contexts.
            directions: what is added for each feature of the plan.
            deltas: the multiple of it that each pair of the plan gets.

        """
        return MeasuredPairs.join(
            [
                self._measure(batch, prefix, directions, deltas)
                for batch, prefix in self._batches(visits, contexts)
            ]
        )

    def divergences(
        self,
        visits: list[Visit],
        contexts: Int[Tensor, "context token"],
        directions: Float[Tensor, "feature width"],
        deltas: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """KL(clean || steered) of the pairs of some visits, and nothing else; arguments as of
        :meth:`measure`. Returns the numbers of the pairs, and their divergences.
        """
        pairs, measured = [], []
        for batch, prefix in self._batches(visits, contexts):
            steered = self._steer(batch, prefix, directions, deltas)
            columns = self._vocabulary.measure(steered.moved, steered.clean, steered.owners)
            pairs.append(steered.pairs)
            measured.append(columns[:, _KL].double().cpu().numpy())
        return np.concatenate(pairs), np.concatenate(measured)

    def _batches(
        self, visits: list[Visit], contexts: Int[Tensor, "context token"]
    ) -> Iterator[tuple[list[Visit], Prefix]]:
        """Visits that are steered at once, with the frozen prefix of their contexts."""
        most = self._most_contexts(contexts.shape[1])
        for start in range(0, len(visits), most):
            frozen = visits[start : start + most]
            prefix = self._forward.freeze(contexts[[visit.context for visit in frozen]])
            for where, batch in split_visits(frozen, self._most_queries()):
                yield batch, prefix.of(where)

    def _measure(
        self,
        visits: list[Visit],
        prefix: Prefix,
        directions: Float[Tensor, "feature width"],
        deltas: NDArray[np.float64],
    ) -> MeasuredPairs:
        steered = self._steer(visits, prefix, directions, deltas)
        columns = [self._collateral.measure(steered.tapped)[steered.real]]
        if self._measure_logits:
            columns.append(self._vocabulary.measure(steered.moved, steered.clean, steered.owners))
        return MeasuredPairs(
            torch.as_tensor(steered.pairs),
            steered.moved.cpu(),
            torch.cat(columns, dim=-1).cpu(),
            torch.tensor([visit.context for visit in visits]),
            steered.clean.cpu(),
        )

    def _steer(
        self,
        visits: list[Visit],
        prefix: Prefix,
        directions: Float[Tensor, "feature width"],
        deltas: NDArray[np.float64],
    ) -> "_Steered":
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
        output, tapped = prefix.resume(push_queries(prefix.final, pushes), self._tap)
        output = output.to(self._vocabulary.dtype)
        real = real.to(device)
        return _Steered(
            pairs=np.concatenate([visit.pairs for visit in visits]),
            owners=torch.repeat_interleave(torch.tensor(counts)).to(device),
            real=real,
            moved=(output[:, 1:] - output[:, :1])[real],
            clean=output[:, 0],
            tapped=tapped,
        )

    def _most_elements(self) -> int:
        return _WORK_ELEMENTS.get(self._model.device.type, _WORK_ELEMENTS_DEFAULT)

    def _most_queries(self) -> int:
        widest = max(4 * self._model.width, self._collateral.width)
        return max(16, min(_MOST_QUERIES, self._most_elements() // widest))

    def _most_contexts(self, length: int) -> int:
        layers = self._model.n_layers - self._site.layer
        size = length * self._model.width * 2 * max(1, layers)
        return max(1, min(_MOST_CONTEXTS, self._most_elements() // size))
