"""Labels that need every logit: sizes, divergences and concentration of the change.

The change of the logits, D = dy W, is computed block of vocabulary by block, and every block is
summed up while it lies in the cache. Where the model soft-caps its logits at b, D is the change of
b tanh(l / b), and not linear in dy.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.concentration import MASS_SIZES, LargestEntries, count_above

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
_MOST_ELEMENTS = {"cpu": 1 << 26}
_MOST_ELEMENTS_DEFAULT = 1 << 28
_COLUMNS_AT_ONCE = {"cpu": 16384}
_ROWS_AT_ONCE = {"cpu": 32}
_AT_ONCE_DEFAULT = 1 << 16
_SMALLEST = 1e-30
_SMALL_CHANGE = 0.5
"""Below it e^D - 1 is taken by expm1: subtracting 1 from e^D would lose the digits of a small KL.
Above it the loss is below 1e-4 of the KL, and exp is six times faster."""
_LARGE_CHANGE = 30.0
"""Above it tokens whose clean share is no float32 any more may become likely."""
_FEW_RUNS = 8


class VocabularyReader:
    """Reads changes of all logits from changes of the final norm's output."""

    def __init__(
        self,
        unembedding: Float[Tensor, "vocab d"],
        bias: Float[Tensor, " vocab"] | None = None,
        soft_cap: float | None = None,
    ) -> None:
        self._unembedding = unembedding
        self._bias = bias
        self._soft_cap = soft_cap
        device = unembedding.device.type
        self._columns = _COLUMNS_AT_ONCE.get(device, _AT_ONCE_DEFAULT)
        self._rows = _ROWS_AT_ONCE.get(device, _AT_ONCE_DEFAULT)
        elements = _MOST_ELEMENTS.get(device, _MOST_ELEMENTS_DEFAULT)
        self.most_queries = min(
            _MOST_QUERIES.get(device, _MOST_QUERIES_DEFAULT), max(1, elements // len(unembedding))
        )
        """How many queries are measured at once."""
        self._memory = unembedding.new_empty(0)

    def logits(self, output: Float[Tensor, "*any d"]) -> Float[Tensor, "*any vocab"]:
        """The logits of an output of the final norm, up to a shift of all of them."""
        logits = output @ self._unembedding.T
        if self._bias is not None:
            logits = logits + self._bias
        if self._soft_cap is not None:
            logits = self._soft_cap * torch.tanh(logits / self._soft_cap)
        return logits

    def measure(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        owners: Int[Tensor, " query"],
    ) -> Float[Tensor, "query column"]:
        """Measures of D, steered minus clean logits; ``COLUMNS`` in order.

        With p the clean next-token distribution and q the steered one, p proportional to exp(l), q
        to exp(l + D): let m = sum p D, s = sum p (e^D - 1), c = sum p (e^D - 1) D. Then KL(p || q)
        = ln(1 + s) - m (``kl_clean_steered``) and KL(q || p) = (m + c)/(1 + s) - ln(1 + s)
        (``kl_steered_clean``), which keeps its digits where D is small.

        Args:
            moved: change of the final norm's output.
            clean: the final norm's clean output of each context.
            owners: which context a query belongs to; fastest where those of one stand together.

        Source: protocol.md, axis size (arXiv:2606.08365).
        """
        pieces = max(1, -(-len(moved) // self.most_queries))
        return torch.cat(
            [
                self._measure(part, clean, some, [])
                for part, some in zip(moved.chunk(pieces), owners.chunk(pieces), strict=True)
            ]
        )

    def measure_features(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        owners: Int[Tensor, " query"],
        counts: list[int],
    ) -> tuple[Float[Tensor, "query column"], list[Float[Tensor, "n n"]]]:
        """:meth:`measure`, and the Gram matrix D D^T of each feature's queries, in float64.

        ``counts`` says how many queries each feature has, one feature after the other.
        """
        grams = [torch.zeros(n, n, dtype=torch.float64) for n in counts]
        return self._measure(moved, clean, owners, grams), grams

    def grams(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        owners: Int[Tensor, " query"],
        counts: list[int],
    ) -> list[Float[Tensor, "n n"]]:
        """The Gram matrices of :meth:`measure_features` alone."""
        grams = [torch.zeros(n, n, dtype=torch.float64) for n in counts]
        for start in range(0, len(self._unembedding), self._columns):
            end = min(start + self._columns, len(self._unembedding))
            block = moved @ self._unembedding[start:end].T
            if self._soft_cap is not None:
                capped = self._capped(clean, start, end)
                for tile in range(0, len(block), self._rows):
                    rows = slice(tile, tile + self._rows)
                    self._bend(block[rows], capped[owners[rows]])
            _add_grams(grams, block)
        return grams

    def _measure(self, moved: Tensor, clean: Tensor, owners: Tensor, grams: list[Tensor]) -> Tensor:
        there, owners = owners.unique(return_inverse=True)
        clean = clean[there.to(clean.device)]
        probabilities = self.logits(clean).softmax(dim=-1)
        shape = len(moved), len(self._unembedding)
        if len(self._memory) < shape[0] * shape[1]:
            self._memory = moved.new_empty(shape[0] * shape[1])
        change = self._memory[: shape[0] * shape[1]].view(shape)
        tiles = [_Tile(start, part) for start, part in _tiles(owners, self._rows)]
        sums, largest = _Sums(len(moved), moved), LargestEntries(*shape, moved)
        for start in range(0, shape[1], self._columns):
            end = min(start + self._columns, shape[1])
            block = change[:, start:end]
            torch.mm(moved, self._unembedding[start:end].T, out=block)
            capped = None if self._soft_cap is None else self._capped(clean, start, end)
            for tile in tiles:
                part = block[tile.rows]
                if capped is not None:
                    self._bend(part, tile.each(capped))
                magnitudes = sums.magnitudes(part)
                peak = largest.add(magnitudes, tile.rows, start)
                shares = probabilities[:, start:end]
                sums.add(tile, part, magnitudes, peak, shares, capped is not None)
            _add_grams(grams, block)
        sums.mend(change, largest.peaks(change))
        if self._soft_cap is None:
            expected = (probabilities @ self._unembedding)[owners]
            m = torch.linalg.vecdot(moved, expected)
        else:
            m = sums.expected
        divergences = sums.divergences(m)
        for query in sums.too_large().tolist():
            logits = self.logits(clean[owners[query]])
            divergences[query] = _divergences_of(logits, change[query])
        return sums.finish(divergences, largest.cumulative(change))

    def _capped(self, clean: Tensor, start: int, end: int) -> Tensor:
        """tanh(l / b) of the clean logits in some columns."""
        assert self._soft_cap is not None
        logits = clean @ self._unembedding[start:end].T
        if self._bias is not None:
            logits = logits + self._bias[start:end]
        return torch.tanh(logits / self._soft_cap)

    def _bend(self, change: Tensor, clean: Tensor) -> None:
        """Put b tanh((l + D) / b) - b tanh(l / b) in D's place, with no difference of large numbers:
        with t = tanh(D / b) and u = tanh(l / b) it is b t (1 - u^2) / (1 + t u).
        """
        assert self._soft_cap is not None
        change.div_(self._soft_cap).tanh_()
        below = (change * clean).add_(1.0)
        change.mul_(1 - clean.square()).div_(below).mul_(self._soft_cap)


class _Tile:
    """Some consecutive queries, and which context each of them has."""

    def __init__(self, start: int, owners: Tensor) -> None:
        self.rows = slice(start, start + len(owners))
        self._owners = owners
        contexts, counts = owners.unique_consecutive(return_counts=True)
        self._contexts: list[int] = contexts.tolist()
        self._counts: list[int] = counts.tolist()

    def each(self, values: Tensor) -> Tensor:
        """A row of each query's context, or one row for all where they have the same."""
        if len(self._contexts) == 1:
            return values[self._contexts[0]][None]
        return values[self._owners]

    def expect(self, values: Tensor, probabilities: Tensor) -> Tensor:
        """Sums of p v over the columns, p that of each query's context."""
        if len(self._contexts) == 1:
            return torch.mv(values, probabilities[self._contexts[0]])
        if len(self._contexts) > _FEW_RUNS:
            found: Tensor = torch.linalg.vecdot(values, probabilities[self._owners])
            return found
        parts = values.split(self._counts)
        return torch.cat(
            [part @ probabilities[i] for i, part in zip(self._contexts, parts, strict=True)]
        )


def _tiles(owners: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(owners), rows):
        yield start, owners[start : start + rows]


def _add_grams(grams: list[Tensor], block: Tensor) -> None:
    start = 0
    for gram in grams:
        rows = block[start : start + len(gram)]
        gram += (rows @ rows.T).cpu().double()
        start += len(gram)


def _divergences_of(logits: Tensor, change: Tensor) -> Tensor:
    """Both divergences of one query by log-softmax: for any size of change, if few digits."""
    clean, steered = logits.log_softmax(dim=0), (logits + change).log_softmax(dim=0)
    difference = clean - steered
    return torch.stack([clean.exp() @ difference, -(steered.exp() @ difference)])


class _Sums:
    """Everything that adds up over blocks of the vocabulary."""

    def __init__(self, n_queries: int, like: Tensor) -> None:
        self._sums = like.new_zeros(n_queries, 5 + len(COUNT_THRESHOLDS))
        self._peak = like.new_zeros(n_queries)
        self._ones = like.new_ones(0)
        self._work = like.new_empty(2, 0)

    def magnitudes(self, change: Tensor) -> Float[Tensor, "row column"]:
        """abs(D) of a tile, in memory that the next tile uses again."""
        if self._work.shape[1] < change.numel():
            self._work = change.new_empty(2, change.numel())
        return torch.abs(change, out=self._work[0, : change.numel()].view(change.shape))

    def add(
        self,
        tile: _Tile,
        change: Tensor,
        magnitudes: Tensor,
        peak: float,
        probabilities: Tensor,
        with_mean: bool,
    ) -> None:
        """Add a tile's block of columns, with the largest of its magnitudes; ``with_mean``: the sum
        of p D too, which has a shorter way where D is linear.
        """
        width = change.shape[1]
        if len(self._ones) < width:
            self._ones = change.new_ones(width)
        ones = self._ones[:width]
        work = self._work[1, : change.numel()].view(change.shape)
        columns = [magnitudes @ ones]
        columns.append(torch.log(magnitudes, out=work).mul_(magnitudes) @ ones)
        if peak < _SMALL_CHANGE:
            torch.expm1(change, out=work)
        else:
            torch.exp(change, out=work).sub_(1.0)
        columns.append(tile.expect(work, probabilities))
        columns.append(tile.expect(work.mul_(change), probabilities))
        columns.append(tile.expect(change, probabilities) if with_mean else columns[0])
        columns += count_above(magnitudes, COUNT_THRESHOLDS, work)
        self._sums[tile.rows] += torch.stack(columns, dim=1)

    @property
    def expected(self) -> Float[Tensor, " query"]:
        """M = sum p D, where :meth:`add` was asked for it."""
        return self._sums[:, 4]

    def mend(self, change: Float[Tensor, "query vocab"], peaks: Float[Tensor, " query"]) -> None:
        """Keep the largest magnitudes; and where some D is 0, 0 ln 0 made the sum no number: take
        it as 0 instead.
        """
        self._peak = peaks
        for query in (~torch.isfinite(self._sums[:, 1])).nonzero().flatten().tolist():
            self._sums[query, 1] = torch.special.xlogy(
                change[query].abs(), change[query].abs()
            ).sum()

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
                self._sums[:, 5:],
                shares,
                effective[:, None],
            ],
            dim=1,
        )
