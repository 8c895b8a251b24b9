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
    fractions = sums_of_largest(magnitudes).to(total) / total[:, None].clamp_min(_SMALLEST)
    return torch.where(total[:, None] > 0, fractions, 0.0)


def count_above(
    magnitudes: Float[Tensor, "row entry"], thresholds: Sequence[float]
) -> list[Float[Tensor, " row"]]:
    """How many entries of each row lie above each threshold, exact up to 2^24 entries.

    As products with ones, several times faster than sums of truth values.
    """
    work = torch.empty_like(magnitudes)
    ones = magnitudes.new_ones(magnitudes.shape[1])
    return [torch.mv(torch.gt(magnitudes, level, out=work), ones) for level in thresholds]


def sums_of_largest(magnitudes: Float[Tensor, "row entry"]) -> Float[Tensor, "row size"]:
    """Sums of the k largest entries of every row, for every k of ``MASS_SIZES`` (of all, where
    there are fewer), in float64, on the CPU (not every device has float64).

    The k largest lie in the k groups of columns with the largest maxima, so only those groups are
    sorted. Group j of n holds columns j, j + n, j + 2n, ...: a maximum over rows of a matrix, which
    processors are quicker at than within a row. The last few columns, if they fill no group, are
    sorted anyway.
    """
    k = min(max(MASS_SIZES), magnitudes.shape[1])
    n_groups = magnitudes.shape[1] // _GROUP
    found = magnitudes
    if n_groups > k:
        grouped = magnitudes[:, : n_groups * _GROUP].unflatten(1, (_GROUP, n_groups))
        chosen = _largest(grouped.amax(dim=1), k)
        inside = grouped.gather(2, chosen[:, None].expand(-1, _GROUP, -1)).flatten(1)
        found = torch.cat([inside, magnitudes[:, n_groups * _GROUP :]], dim=1)
    ends = [min(size, k) - 1 for size in MASS_SIZES]
    return _sorted_down(found, k).cpu().double().cumsum(dim=1)[:, ends]


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
