"""How concentrated a vector of logits or activations is: shares of its largest entries, entropy."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .threads import by_rows

MASS_SIZES = (10, 50, 100, 500)
_SMALLEST = 1e-30
_GROUP = 8


def entropy_of_magnitudes(
    magnitudes: Float[Tensor, "*rows entry"], total: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """Entropy in nats of a / S for non-negative a with S = sum of a; 0 where S is 0.

    Computed as ln S - (sum of a ln a) / S.
    """
    logarithms = magnitudes.clamp_min(_SMALLEST).log_()  # 0 ln 0 is 0
    weighted = logarithms.mul_(magnitudes).sum(dim=-1)
    safe = total.clamp_min(_SMALLEST)
    return torch.where(total > 0, safe.log() - weighted / safe, 0.0)


def effective_number(
    magnitudes: Float[Tensor, "*rows entry"], total: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """exp(entropy of a / S): as how many equal entries a vector counts; 0 for a zero vector."""
    return torch.where(total > 0, entropy_of_magnitudes(magnitudes, total).exp(), 0.0)


def mass_fractions(
    magnitudes: Float[Tensor, "row entry"], total: Float[Tensor, " row"]
) -> Float[Tensor, "row size"]:
    """Share of the sum that lies in the k largest entries, for every k of ``MASS_SIZES``.

    A k above the number of entries takes all of them; 0 for a zero vector.
    """
    largest = LargestEntries(len(magnitudes), magnitudes.shape[1], magnitudes)
    largest.add(magnitudes, slice(None), 0)
    fractions = largest.cumulative(magnitudes).to(total) / total[:, None].clamp_min(_SMALLEST)
    return torch.where(total[:, None] > 0, fractions, 0.0)


def count_above(
    magnitudes: Float[Tensor, "row entry"],
    thresholds: Sequence[float],
    work: Float[Tensor, "row entry"] | None = None,
) -> list[Float[Tensor, " row"]]:
    """How many entries of each row lie above each threshold, exact up to 2^24 entries.

    As products with ones, several times faster than sums of truth values; ``work`` is memory to
    use again.
    """
    work = torch.empty_like(magnitudes) if work is None else work
    ones = magnitudes.new_ones(magnitudes.shape[1])
    return [torch.mv(torch.gt(magnitudes, level, out=work), ones) for level in thresholds]


class LargestEntries:
    """The largest entries of every row of a matrix whose magnitudes arrive in blocks.

    The k largest entries of a row lie in the k groups of columns with the largest maxima, so only
    those groups are looked into. Group j of the n groups of a block holds its columns j, j + n,
    j + 2n, ...: a maximum over rows of a matrix, which processors are quicker at than within a row.
    A block's last few columns, if they fill no group, are looked into anyway.
    """

    def __init__(self, n_rows: int, n_columns: int, like: Tensor) -> None:
        self._maxima = like.new_empty(n_rows, n_columns // _GROUP)
        self._members: list[Tensor] = []
        self._ungrouped: list[int] = []
        self._groups_before: dict[int, int] = {}
        self._n_groups = 0

    def add(self, magnitudes: Float[Tensor, "row column"], rows: slice, start: int) -> float:
        """Take some rows of the block whose first column is ``start``; returns their maximum.

        The blocks' widths add up to the matrix's; every row of a block comes once.
        """
        width = magnitudes.shape[1]
        groups = width // _GROUP
        whole = groups * _GROUP
        if start not in self._groups_before:
            columns = torch.arange(start, start + whole, device=magnitudes.device)
            self._members.append(columns.view(_GROUP, -1).T)
            self._ungrouped.extend(range(start + whole, start + width))
            self._groups_before[start] = self._n_groups
            self._n_groups += groups
        before = self._groups_before[start]
        peak = 0.0
        if groups:
            maxima = self._maxima[rows, before : before + groups]
            torch.amax(magnitudes[:, :whole].unflatten(1, (_GROUP, groups)), dim=1, out=maxima)
            peak = float(maxima.max())
        if whole < width:
            peak = max(peak, float(magnitudes[:, whole:].max()))
        return peak

    def peaks(self, values: Float[Tensor, "row entry"]) -> Float[Tensor, " row"]:
        """The largest magnitude of every row of ``values``."""
        found = values[:, self._ungrouped].abs()
        if self._n_groups:
            found = torch.cat([self._maxima[:, : self._n_groups], found], dim=1)
        return found.amax(dim=1)

    def cumulative(self, values: Float[Tensor, "row entry"]) -> Float[Tensor, "row size"]:
        """Sums of the k largest magnitudes of ``values``, for every k of ``MASS_SIZES``.

        In float64, on the CPU (not every device has float64).
        """
        k = min(max(MASS_SIZES), values.shape[1])
        found = values
        if self._n_groups > k:
            members = torch.cat(self._members)
            groups = _largest(self._maxima[:, : self._n_groups], k)
            found = values.gather(1, members[groups].flatten(1))
            if self._ungrouped:
                found = torch.cat([found, values[:, self._ungrouped]], dim=1)
        return sums_of_largest(found.abs())


def sums_of_largest(magnitudes: Float[Tensor, "row entry"]) -> Float[Tensor, "row size"]:
    """Sums of the k largest entries of every row, for every k of ``MASS_SIZES`` (of all, where
    there are fewer), in float64, on the CPU.
    """
    k = min(max(MASS_SIZES), magnitudes.shape[1])
    ends = [min(size, k) - 1 for size in MASS_SIZES]
    return _sorted_down(magnitudes, k).cpu().double().cumsum(dim=1)[:, ends]


def _largest(values: Tensor, k: int) -> Tensor:
    """Columns of the k largest entries of every row, in any order."""
    if values.device.type != "cpu":
        return torch.topk(values, k, dim=1, sorted=False).indices
    place, rows = values.shape[1] - k, values.numpy()
    found = by_rows(lambda r: np.argpartition(rows[r], place, axis=1)[:, place:], len(rows))
    return torch.from_numpy(np.concatenate(found))


def _sorted_down(values: Tensor, k: int) -> Tensor:
    """The k largest entries of every row, largest first.

    Numpy selects and sorts floats with vector instructions, several times faster than torch.
    """
    if values.device.type != "cpu":
        return torch.topk(values, k, dim=1).values
    place, rows = values.shape[1] - k, values.numpy()
    found = by_rows(
        lambda r: np.sort(np.partition(rows[r], place, axis=1)[:, place:], axis=1), len(rows)
    )
    return torch.from_numpy(np.concatenate(found)).flip(1)
