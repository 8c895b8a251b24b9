"""What adds up over blocks of the vocabulary: by tensor operations on any device, by compiled loops
for float32 on the CPU.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.concentration import (
    MASS_SIZES,
    LargestEntries,
    count_above,
    sums_of_largest,
)
from ..core.threads import by_rows
from . import compiled

COUNT_THRESHOLDS = (0.05, 0.1, 0.2, 0.5)

_N_SUMS = 6 + len(COUNT_THRESHOLDS)
_ROWS_AT_ONCE = {"cpu": 32}
_ROWS_AT_ONCE_DEFAULT = 1 << 16
_SMALL_CHANGE = 0.5
"""Below it e^D - 1 is taken by expm1: subtracting 1 from e^D would lose the digits of a small KL.
Above it the loss is below 1e-4 of the KL, and exp is six times faster."""
_FEW_RUNS = 8
_LARGEST_CLEAN = 20.0
"""At 2 l / b above it the capped logit is b, to the last digit of float32."""
_ROOM = 4
"""Magnitudes gathered for each that is wanted; where they are more, the whole row is sorted."""


class Sums(ABC):
    """Sums over the entries D of each query's change of the logits, p being the clean shares.

    ``values``, ``[query, sum]``: sum abs(D), sum abs(D) ln abs(D), s = sum p (e^D - 1),
    c = sum p (e^D - 1) D, m = sum p D, the largest magnitude, and how many lie above each of
    ``COUNT_THRESHOLDS``.
    """

    values: Float[Tensor, "query sum"]

    @abstractmethod
    def add(self, change: Float[Tensor, "query vocab"], columns: slice) -> None:
        """Take a block of columns, of which D is there now. Blocks come in order."""

    @abstractmethod
    def finish(self, change: Float[Tensor, "query vocab"]) -> Float[Tensor, "query size"]:
        """When every block has come, make ``values`` whole; returns sums of the k largest
        magnitudes, for every k of ``MASS_SIZES``, in float64 on the CPU.
        """


def sums_of(shares: Float[Tensor, "context vocab"], owners: Int[Tensor, " query"]) -> Sums:
    """The way that suits a kind of tensor. ``owners`` says which context each query has."""
    kind = CompiledSums if _has_loops(shares) else TiledSums
    return kind(shares, owners)


class SoftCap:
    """b tanh(l / b) of logits, seen from some clean logits l.

    With E = exp(2 l / b) and F = exp(2 D / b) - 1, the change b tanh((l + D) / b) - b tanh(l / b)
    is 2 b E / (E + 1) F / (E (F + 1) + 1), in which nothing cancels.
    """

    def __init__(self, clean: Float[Tensor, "context column"], soft_cap: float) -> None:
        self._stretch = 2 / soft_cap
        self._odds = (clean * self._stretch).clamp_(-_LARGEST_CLEAN, _LARGEST_CLEAN).exp_()
        self._scales = 2 * soft_cap * self._odds / (self._odds + 1)

    def bend(
        self, change: Float[Tensor, "query vocab"], owners: Int[Tensor, " query"], first: int
    ) -> None:
        """Put the change after the cap in D's place, in the columns from ``first``."""
        if _has_loops(change):
            rows, contexts = change.numpy(), owners.numpy()
            odds, scales, stretch = (
                self._odds.numpy(),
                self._scales.numpy(),
                np.float32(self._stretch),
            )
            by_rows(
                lambda r: compiled.bend(rows[r], odds, scales, contexts[r], first, stretch),
                len(rows),
            )
            return
        at_once = _ROWS_AT_ONCE.get(change.device.type, _ROWS_AT_ONCE_DEFAULT)
        block = change[:, first : first + self._odds.shape[1]]
        for part, some in zip(block.split(at_once), owners.split(at_once), strict=True):
            part.mul_(self._stretch).clamp_(max=float(compiled.LARGEST_STRETCH)).expm1_()
            below = (part + 1).mul_(self._odds[some]).add_(1.0)
            part.mul_(self._scales[some]).div_(below)


def _has_loops(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32


class CompiledSums(Sums):
    """By compiled loops over whole rows, side by side on threads."""

    def __init__(self, shares: Tensor, owners: Tensor) -> None:
        self._shares, self._owners = shares.numpy(), owners.numpy()
        self._thresholds = torch.tensor(COUNT_THRESHOLDS).numpy()
        self.values = torch.zeros(len(owners), _N_SUMS, dtype=torch.float64)

    def add(self, change: Tensor, columns: slice) -> None:
        """Nothing: rows are read when they are whole."""

    def finish(self, change: Tensor) -> Tensor:
        """See :meth:`Sums.finish`."""
        rows, sums, k = change.numpy(), self.values.numpy(), max(MASS_SIZES)
        found = np.empty((len(rows), _ROOM * k), dtype=np.float32)
        counts = np.empty(len(rows), dtype=np.int64)

        def scan(r: slice) -> None:
            owners = self._owners[r]
            compiled.scan(
                rows[r], self._shares, owners, self._thresholds, sums[r], k, found[r], counts[r]
            )

        by_rows(scan, len(rows))
        largest = sums_of_largest(torch.from_numpy(found[:, : max(k, int(counts.max()))]))
        left = torch.from_numpy(np.flatnonzero(counts == 0))
        largest[left] = sums_of_largest(change[left].abs())
        return largest


class TiledSums(Sums):
    """By tensor operations, some rows at a time so that they lie in the processor's cache."""

    def __init__(self, shares: Tensor, owners: Tensor) -> None:
        at_once = _ROWS_AT_ONCE.get(shares.device.type, _ROWS_AT_ONCE_DEFAULT)
        starts = range(0, len(owners), at_once)
        parts = owners.split(at_once)
        self._tiles = [_Tile(start, part) for start, part in zip(starts, parts, strict=True)]
        self._shares = shares
        self._entries = LargestEntries(len(owners), shares.shape[1], shares)
        self._ones = shares.new_ones(0)
        self._work = shares.new_empty(2, 0)
        self.values = shares.new_zeros(len(owners), _N_SUMS)

    def add(self, change: Tensor, columns: slice) -> None:
        """See :meth:`Sums.add`."""
        block, shares = change[:, columns], self._shares[:, columns]
        if len(self._ones) < block.shape[1]:
            self._ones = block.new_ones(block.shape[1])
        for tile in self._tiles:
            part = block[tile.rows]
            if self._work.shape[1] < part.numel():
                self._work = part.new_empty(2, part.numel())
            first, second = (memory[: part.numel()].view(part.shape) for memory in self._work)
            magnitudes = torch.abs(part, out=first)
            peak = self._entries.add(magnitudes, tile.rows, columns.start)
            found = self._columns(tile, part, magnitudes, second, peak, shares)
            self.values[tile.rows] += torch.stack(found, dim=1)

    def _columns(
        self,
        tile: "_Tile",
        change: Tensor,
        magnitudes: Tensor,
        work: Tensor,
        peak: float,
        shares: Tensor,
    ) -> list[Tensor]:
        ones = self._ones[: change.shape[1]]
        columns = [magnitudes @ ones]
        columns.append(torch.log(magnitudes, out=work).mul_(magnitudes) @ ones)
        if peak < _SMALL_CHANGE:
            torch.expm1(change, out=work)
        else:
            torch.exp(change, out=work).sub_(1.0)
        columns.append(tile.expect(work, shares))
        columns.append(tile.expect(work.mul_(change), shares))
        columns += [tile.expect(change, shares), torch.zeros_like(columns[0])]
        return columns + count_above(magnitudes, COUNT_THRESHOLDS, work)

    def finish(self, change: Tensor) -> Tensor:
        """See :meth:`Sums.finish`."""
        # Where some D is 0, 0 ln 0 made the sum no number.
        for query in (~torch.isfinite(self.values[:, 1])).nonzero().flatten().tolist():
            magnitudes = change[query].abs()
            self.values[query, 1] = torch.special.xlogy(magnitudes, magnitudes).sum()
        self.values[:, 5] = self._entries.peaks(change)
        return self._entries.cumulative(change)


class _Tile:
    """Some consecutive queries, and which context each of them has."""

    def __init__(self, start: int, owners: Tensor) -> None:
        self.rows = slice(start, start + len(owners))
        self._owners = owners
        contexts, counts = owners.unique_consecutive(return_counts=True)
        self._contexts: list[int] = contexts.tolist()
        self._counts: list[int] = counts.tolist()

    def expect(self, values: Tensor, shares: Tensor) -> Tensor:
        """Sums of p v over the columns, p that of each query's context."""
        if len(self._contexts) == 1:
            return torch.mv(values, shares[self._contexts[0]])
        if len(self._contexts) > _FEW_RUNS:
            found: Tensor = torch.linalg.vecdot(values, shares[self._owners])
            return found
        parts = values.split(self._counts)
        return torch.cat([part @ shares[i] for i, part in zip(self._contexts, parts, strict=True)])
