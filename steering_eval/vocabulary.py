"""Labels that need every logit: sizes, divergences and concentration of the change.

The change of the logits, D = dy W, is computed block of vocabulary by block, and every block is
summed up while it lies in the cache.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
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

_MOST_QUERIES = {"cpu": 1024}
_MOST_QUERIES_DEFAULT = 1 << 13
_MOST_ELEMENTS = 1 << 26
_COLUMNS_AT_ONCE = {"cpu": 4096}
_ROWS_AT_ONCE = {"cpu": 64}
_AT_ONCE_DEFAULT = 1 << 16
_SMALLEST = 1e-30
_SMALL_CHANGE = 0.5
"""Below it e^D - 1 is taken by expm1: subtracting 1 from e^D would lose the digits of a small KL.
Above it the loss is below 1e-4 of the KL, and exp is six times faster."""
_LARGE_CHANGE = 30.0
"""Above it tokens whose clean share is no float32 any more may become likely."""


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
        tiles = [_Tile(start, part) for start, part in _tiles(owners, self._rows)]
        sums, largest = _Sums(len(moved), moved), LargestEntries()
        for start in range(0, shape[1], self._columns):
            end = min(start + self._columns, shape[1])
            torch.mm(moved, self._unembedding[start:end].T, out=change[:, start:end])
            maxima = []
            for tile in tiles:
                part = change[tile.rows, start:end]
                magnitudes = part.abs()
                maxima.append(group_maxima(magnitudes))
                sums.add(tile, part, magnitudes, probabilities[:, start:end])
            largest.add(torch.cat(maxima), start, end)
        expected = probabilities @ self._unembedding
        m = torch.linalg.vecdot(moved, expected[owners])
        divergences = sums.divergences(m)
        for query in sums.too_large().tolist():
            logits = clean[there[owners[query]]] @ self._unembedding.T
            divergences[query] = _divergences_of(logits, change[query])
        return sums.finish(divergences, largest.cumulative(change))


class _Tile:
    """Some consecutive queries, and how many of them each context has."""

    def __init__(self, start: int, owners: Tensor) -> None:
        self.rows = slice(start, start + len(owners))
        contexts, counts = owners.unique_consecutive(return_counts=True)
        self._contexts: list[int] = contexts.tolist()
        self._counts: list[int] = counts.tolist()

    def expect(self, values: Tensor, probabilities: Tensor) -> Tensor:
        """Sums of p v over the columns, p that of each query's context."""
        parts = values.split(self._counts)
        return torch.cat(
            [part @ probabilities[i] for i, part in zip(self._contexts, parts, strict=True)]
        )


def _tiles(owners: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(owners), rows):
        yield start, owners[start : start + rows]


def _divergences_of(logits: Tensor, change: Tensor) -> Tensor:
    """Both divergences of one query by log-softmax: for any size of change, if few digits."""
    clean, steered = logits.log_softmax(dim=0), (logits + change).log_softmax(dim=0)
    difference = clean - steered
    return torch.stack([clean.exp() @ difference, -(steered.exp() @ difference)])


class _Sums:
    """Everything that adds up over blocks of the vocabulary."""

    def __init__(self, n_queries: int, like: Tensor) -> None:
        self._sums = like.new_zeros(n_queries, 4 + len(COUNT_THRESHOLDS))
        self._peak = like.new_zeros(n_queries)

    def add(self, tile: _Tile, change: Tensor, magnitudes: Tensor, probabilities: Tensor) -> None:
        """Add a tile's block of columns."""
        ones = change.new_ones(change.shape[1])
        peak = magnitudes.amax(dim=1)
        torch.maximum(self._peak[tile.rows], peak, out=self._peak[tile.rows])
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
        columns.append(tile.expect(work, probabilities))
        columns.append(tile.expect(work.mul_(change), probabilities))

        columns += [torch.gt(magnitudes, level, out=work) @ ones for level in COUNT_THRESHOLDS]
        self._sums[tile.rows] += torch.stack(columns, dim=1)

    def too_large(self) -> Int[Tensor, " large"]:
        """Queries for which e^D or the share of a token that it lifts leaves the number range."""
        return (self._peak > _LARGE_CHANGE).nonzero().flatten()

    def divergences(self, m: Float[Tensor, " query"]) -> Float[Tensor, "query 2"]:
        """KL(p || q) and KL(q || p), from m = sum p D and the sums s and c."""
        s, c = self._sums[:, 2], self._sums[:, 3]
        growth = s.log1p()
        return torch.stack([growth - m, (m + c) / (1 + s) - growth], dim=1).clamp_min(0.0)

    def finish(
        self, divergences: Float[Tensor, "query 2"], top: Float[Tensor, "query size"]
    ) -> Float[Tensor, "query column"]:
        """All columns, with both divergences and the sums of the largest entries."""
        total, weighted = self._sums[:, 0], self._sums[:, 1]
        safe = total.clamp_min(_SMALLEST)
        some = total > 0
        effective = torch.where(some, (safe.log() - weighted / safe).exp(), 0.0)
        shares = torch.where(some[:, None], top.to(total) / safe[:, None], 0.0)
        return torch.cat(
            [
                torch.stack([total, self._peak], dim=1),
                divergences,
                self._sums[:, 4:],
                shares,
                effective[:, None],
            ],
            dim=1,
        )
