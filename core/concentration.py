"""How concentrated a vector of logits or activations is: shares of its largest entries, entropy."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
    largest = LargestEntries()
    largest.add(group_maxima(magnitudes), 0, magnitudes.shape[1])
    fractions = largest.cumulative(magnitudes).to(total) / total[:, None].clamp_min(_SMALLEST)
    return torch.where(total[:, None] > 0, fractions, 0.0)


def group_maxima(magnitudes: Float[Tensor, "query entry"]) -> Float[Tensor, "query group"]:
    """Maxima of groups of ``_GROUP`` columns; the last few, if they fill no group, are left out.

    Group j of n holds the columns j, j + n, j + 2n, ...: a maximum over rows of a matrix, which
    processors are quicker at than within a row.
    """
    whole = magnitudes.shape[1] // _GROUP * _GROUP
    grouped: Tensor = magnitudes[:, :whole].unflatten(1, (_GROUP, whole // _GROUP))
    return grouped.amax(dim=1)


class LargestEntries:
    """The largest entries of every row of a matrix that arrives in blocks of columns.

    The k largest entries of a row lie in the k groups of columns with the largest maxima, so only
    those groups are looked into.
    """

    def __init__(self) -> None:
        self._maxima: list[Tensor] = []
        self._members: list[Tensor] = []
        self._ungrouped: list[int] = []

    def add(self, maxima: Float[Tensor, "query group"], start: int, end: int) -> None:
        """Take the :func:`group_maxima` of the columns from ``start`` to ``end``."""
        whole = start + maxima.shape[1] * _GROUP
        columns = torch.arange(start, whole, device=maxima.device)
        self._maxima.append(maxima)
        self._members.append(columns.view(_GROUP, -1).T)
        self._ungrouped.extend(range(whole, end))

    def cumulative(self, values: Float[Tensor, "query entry"]) -> Float[Tensor, "query size"]:
        """Sums of the k largest magnitudes of ``values``, for every k of ``MASS_SIZES``.

        In float64, on the CPU (not every device has float64).
        """
        k = min(max(MASS_SIZES), values.shape[1])
        found = values
        if sum(len(members) for members in self._members) > k:
            maxima, members = torch.cat(self._maxima, dim=1), torch.cat(self._members)
            groups = torch.topk(maxima, k, dim=1, sorted=False).indices
            found = values.gather(1, members[groups].flatten(1))
            if self._ungrouped:
                found = torch.cat([found, values[:, self._ungrouped]], dim=1)
        ends = [min(size, k) - 1 for size in MASS_SIZES]
        return _sorted_down(found.abs())[:, :k].cpu().double().cumsum(dim=1)[:, ends]


def _sorted_down(values: Tensor) -> Tensor:
    if values.device.type != "cpu":
        return values.sort(dim=1, descending=True).values
    # numpy sorts floats with vector instructions, ten times faster than torch.
    rising: Tensor = torch.from_numpy(np.sort(values.numpy(), axis=1))
    return rising.flip(1)
