"""Labels that need every logit: sizes, divergences and concentration of the change.

The change of the logits, D = dy W, is computed block of vocabulary by block, and every block is
summed up while it lies in the cache.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.concentration import MASS_SIZES, LargestEntries, group_maxima

COUNT_THRESHOLDS = (0.05, 0.1, 0.2, 0.5)
COLUMNS = (
    "effect_l1",
    "effect_linf",
    "kl_clean_steered",
    "kl_steered_clean",
    *(f"logit_count_gt_{threshold}" for threshold in COUNT_THRESHOLDS),
    *(f"logit_top{k}_mass_frac" for k in MASS_SIZES),
    "logit_effective_vocab",
)
"""Columns of :meth:`VocabularyReader.measure`, in order."""

_MOST_QUERIES = {"cpu": 512}
_MOST_QUERIES_DEFAULT = 1 << 13
_MOST_ELEMENTS = 1 << 26
_COLUMNS_AT_ONCE = {"cpu": 2048}
_ROWS_AT_ONCE = {"cpu": 128}
_AT_ONCE_DEFAULT = 1 << 16
_SMALLEST = 1e-30
_SMALL_CHANGE = 0.5
"""Below it e^D - 1 is taken by expm1: subtracting 1 from e^D would lose the digits of a small KL.
Above it the loss is below 1e-4 of the KL, and exp is six times faster."""


class VocabularyReader:
    """Reads changes of all logits from changes of the final norm's output."""

    def __init__(self, unembedding: Float[Tensor, "vocab d"]) -> None:
        self._unembedding = unembedding
        device = unembedding.device.type
        self._columns = _COLUMNS_AT_ONCE.get(device, _AT_ONCE_DEFAULT)
        self._rows = _ROWS_AT_ONCE.get(device, _AT_ONCE_DEFAULT)
        self._most = min(
            _MOST_QUERIES.get(device, _MOST_QUERIES_DEFAULT),
            max(1, _MOST_ELEMENTS // len(unembedding)),
        )
        self._memory = unembedding.new_empty(0)

    def measure(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        counts: Sequence[int],
    ) -> Float[Tensor, "query column"]:
        """Measures of D, steered minus clean logits; ``COLUMNS`` in order.

        With p the clean next-token distribution and q the steered one, p proportional to exp(l), q
        to exp(l + D): let m = sum p D, s = sum p (e^D - 1), c = sum p (e^D - 1) D. Then KL(p || q)
        = ln(1 + s) - m (``kl_clean_steered``) and KL(q || p) = (m + c)/(1 + s) - ln(1 + s)
        (``kl_steered_clean``), which keeps its digits where D is small.

        Args:
            moved: change of the final norm's output, the queries of a context together.
            clean: the final norm's clean output of each context.
            counts: how many queries each context has.

        Source: protocol.md, axis size (arXiv:2606.08365).
        """
        contexts = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        pieces = max(1, -(-len(moved) // self._most))
        return torch.cat(
            [
                self._measure(part, clean, owners)
                for part, owners in zip(moved.chunk(pieces), contexts.chunk(pieces), strict=True)
            ]
        )

    def _measure(self, moved: Tensor, clean: Tensor, owners: Tensor) -> Tensor:
        there, owners = owners.unique_consecutive(return_inverse=True)
        probabilities = (clean[there] @ self._unembedding.T).softmax(dim=-1)
        shape = len(moved), len(self._unembedding)
        if len(self._memory) < shape[0] * shape[1]:
            self._memory = moved.new_empty(shape[0] * shape[1])
        change = self._memory[: shape[0] * shape[1]].view(shape)
        sums, largest = _Sums(len(moved), moved), LargestEntries()
        for start in range(0, shape[1], self._columns):
            end = min(start + self._columns, shape[1])
            torch.mm(moved, self._unembedding[start:end].T, out=change[:, start:end])
            maxima = []
            for row in range(0, shape[0], self._rows):
                rows = slice(row, row + self._rows)
                part = change[rows, start:end]
                magnitudes = part.abs()
                maxima.append(group_maxima(magnitudes))
                sums.add(rows, part, magnitudes, probabilities[:, start:end], owners[rows])
            largest.add(torch.cat(maxima), start, end)
        return sums.finish(largest.cumulative(change))


class _Sums:
    """Everything that adds up over blocks of the vocabulary."""

    def __init__(self, n_queries: int, like: Tensor) -> None:
        self._sums = like.new_zeros(n_queries, 5 + len(COUNT_THRESHOLDS))
        self._peak = like.new_zeros(n_queries)

    def add(
        self,
        rows: slice,
        change: Tensor,
        magnitudes: Tensor,
        probabilities: Tensor,
        owners: Tensor,
    ) -> None:
        ones = change.new_ones(change.shape[1])
        peak = magnitudes.amax(dim=1)
        torch.maximum(self._peak[rows], peak, out=self._peak[rows])
        columns = [magnitudes @ ones]

        work = magnitudes.log()
        weighted = work.mul_(magnitudes) @ ones
        if not torch.isfinite(weighted).all():  # 0 ln 0 is 0
            weighted = work.nan_to_num_(nan=0.0) @ ones
        columns.append(weighted)

        if float(peak.max()) < _SMALL_CHANGE:
            torch.expm1(change, out=work)
        else:
            torch.exp(change, out=work).sub_(1.0)
        columns.append(_by_context(change, probabilities, owners))
        columns.append(_by_context(work, probabilities, owners))
        columns.append(_by_context(work.mul_(change), probabilities, owners))

        columns += [torch.gt(magnitudes, level, out=work) @ ones for level in COUNT_THRESHOLDS]
        self._sums[rows] += torch.stack(columns, dim=1)

    def finish(self, top: Float[Tensor, "query size"]) -> Float[Tensor, "query column"]:
        total, weighted, m, s, c, *counts = self._sums.unbind(1)
        log_growth = s.log1p()
        safe = total.clamp_min(_SMALLEST)
        some = total > 0
        entropy = safe.log() - weighted / safe
        return torch.cat(
            [
                torch.stack(
                    [
                        total,
                        self._peak,
                        (log_growth - m).clamp_min(0.0),
                        ((m + c) / (1 + s) - log_growth).clamp_min(0.0),
                        *counts,
                    ],
                    dim=1,
                ),
                torch.where(some[:, None], top.to(total) / safe[:, None], 0.0),
                torch.where(some, entropy.exp(), 0.0)[:, None],
            ],
            dim=1,
        )


def _by_context(values: Tensor, probabilities: Tensor, owners: Tensor) -> Tensor:
    there, counts = owners.unique_consecutive(return_counts=True)
    parts = values.split(counts.tolist())
    return torch.cat([part @ probabilities[i] for part, i in zip(parts, there, strict=True)])
