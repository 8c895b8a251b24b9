"""Sums over the vocabulary: by compiled loops for float32 on the CPU, by tensor operations elsewhere."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64
from torch import Tensor

from ..core.concentration import MASS_SIZES, count_above, sums_of_largest
from ..core.threads import by_rows
from . import compiled

COUNT_THRESHOLDS = (0.05, 0.1, 0.2, 0.5)

_N_SUMS = 6 + len(COUNT_THRESHOLDS)
_ELEMENTS_AT_ONCE = 1 << 26
_LARGEST_CLEAN = 20.0
"""At 2 l / b above it the capped logit is b, to the last digit of float32."""
_ROOM = 4
"""Magnitudes gathered for each that is wanted; where they are more, the whole row is sorted."""


def sum_up(
    change: Float[Tensor, "query vocab"],
    shares: Float[Tensor, "context vocab"],
    owners: Int[Tensor, " query"],
) -> tuple[Float[Tensor, "query sum"], Float[Tensor, "query size"]]:
    """Sums over the entries D of each query's change of the logits, p being the clean shares.

    Returns, for each query: sum abs(D), sum abs(D) ln abs(D), s = sum p (e^D - 1), c = sum p (e^D -
    1) D, m = sum p D, the largest magnitude, and how many lie above each of ``COUNT_THRESHOLDS``; and
    the sums of its k largest magnitudes, for every k of ``MASS_SIZES``, in float64 on the CPU.

    Args:
        change: D.
        shares: p.
        owners: which context each query has.

    """
    if _has_loops(change):
        return sum_by_loops(change, shares, owners)
    rows = max(1, _ELEMENTS_AT_ONCE // change.shape[1])
    parts = [
        sum_by_tensors(part, shares[some])
        for part, some in zip(change.split(rows), owners.split(rows), strict=True)
    ]
    values, largest = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(largest)


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
        block = change[:, first : first + self._odds.shape[1]]
        block.mul_(self._stretch).clamp_(max=float(compiled.LARGEST_STRETCH)).expm1_()
        below = (block + 1).mul_(self._odds[owners]).add_(1.0)
        block.mul_(self._scales[owners]).div_(below)


def _has_loops(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32


def sum_by_loops(
    change: Float32[Tensor, "query vocab"],
    shares: Float32[Tensor, "context vocab"],
    owners: Int64[Tensor, " query"],
) -> tuple[Float64[Tensor, "query sum"], Float64[Tensor, "query size"]]:
    """:func:`sum_up` for float32 on the CPU: rows side by side on threads."""
    rows, p, contexts = change.numpy(), shares.numpy(), owners.numpy()
    values = torch.zeros(len(rows), _N_SUMS, dtype=torch.float64)
    sums, thresholds, k = values.numpy(), torch.tensor(COUNT_THRESHOLDS).numpy(), max(MASS_SIZES)
    gathered = np.empty((len(rows), _ROOM * k), dtype=np.float32)
    counts = np.empty(len(rows), dtype=np.int64)
    by_rows(
        lambda r: compiled.scan(
            rows[r], p, contexts[r], thresholds, sums[r], k, gathered[r], counts[r]
        ),
        len(rows),
    )
    largest = sums_of_largest(torch.from_numpy(gathered[:, : max(k, int(counts.max()))]))
    left = torch.from_numpy(np.flatnonzero(counts == 0))
    largest[left] = sums_of_largest(change[left].abs())
    return values, largest


def sum_by_tensors(
    change: Float[Tensor, "query vocab"], shares: Float[Tensor, "query vocab"]
) -> tuple[Float[Tensor, "query sum"], Float[Tensor, "query size"]]:
    """:func:`sum_up` on any device, with the shares of each query's own context."""
    magnitudes, grown = change.abs(), change.expm1()
    columns = [
        magnitudes.sum(dim=1),
        torch.special.xlogy(magnitudes, magnitudes).sum(dim=1),
        torch.linalg.vecdot(grown, shares),
        torch.linalg.vecdot(grown.mul_(change), shares),
        torch.linalg.vecdot(change, shares),
        magnitudes.amax(dim=1),
        *count_above(magnitudes, COUNT_THRESHOLDS),
    ]
    return torch.stack(columns, dim=1), sums_of_largest(magnitudes)
