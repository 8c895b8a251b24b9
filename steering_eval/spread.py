"""How far changes spread over a panel: by a compiled loop for float32 on the CPU, else by tensors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ..core.concentration import count_above, effective_number
from ..core.threads import by_rows
from . import compiled

_SMALLEST = 1e-30


def measure_spread(
    magnitudes: Float[Tensor, "row feature"],
    thresholds: Sequence[float],
    counted: Float[Tensor, " feature"],
    level: float,
    scales: Float[Tensor, " feature"],
    shares: Sequence[float],
) -> list[Float[Tensor, " row"]]:
    """Of each row: how many entries lie above each threshold, how many of the counted ones above the
    level, the norm, as how many equal entries they count (exp of the entropy of their shares), how many
    lie above each share of their scale, and their sum in units of it.

    Args:
        magnitudes: non-negative entries.
        thresholds: those whose crossings are counted.
        counted: 1 for the features whose crossings of ``level`` are counted, else 0.
        level: see ``counted``.
        scales: each feature's own unit, above 0.
        shares: of the scales: thresholds in these units.

    """
    if magnitudes.device.type == "cpu" and magnitudes.dtype == torch.float32:
        return spread_by_loop(magnitudes, thresholds, counted, level, scales, shares)
    return spread_by_tensors(magnitudes, thresholds, counted, level, scales, shares)


def spread_by_loop(
    magnitudes: Float32[Tensor, "row feature"],
    thresholds: Sequence[float],
    counted: Float32[Tensor, " feature"],
    level: float,
    scales: Float32[Tensor, " feature"],
    shares: Sequence[float],
) -> list[Float32[Tensor, " row"]]:
    """:func:`measure_spread` in one pass over each row while it lies in the processor's cache."""
    rows, levels, some = magnitudes.numpy(), torch.tensor(thresholds).numpy(), counted.numpy()
    n_thresholds, own, units = len(thresholds), torch.tensor(shares).numpy(), scales.numpy()
    values = torch.zeros(len(rows), 5 + n_thresholds + len(shares), dtype=torch.float64)
    sums, single = values.numpy(), torch.tensor(level).numpy()[()]
    by_rows(
        lambda r: compiled.add_up(rows[r], levels, some, single, units, own, sums[r]), len(rows)
    )
    total, weighted, square, among, mass, *counts = values.unbind(dim=1)
    safe = total.clamp_min(_SMALLEST)
    effective = torch.where(total > 0, (safe.log() - weighted / safe).exp(), 0.0)
    absolute, relative = counts[:n_thresholds], counts[n_thresholds:]
    columns = (*absolute, among, square.sqrt(), effective, *relative, mass)
    return [each.to(magnitudes.dtype) for each in columns]


def spread_by_tensors(
    magnitudes: Float[Tensor, "row feature"],
    thresholds: Sequence[float],
    counted: Float[Tensor, " feature"],
    level: float,
    scales: Float[Tensor, " feature"],
    shares: Sequence[float],
) -> list[Float[Tensor, " row"]]:
    """:func:`measure_spread` on any device."""
    scaled = magnitudes / scales
    return [
        *count_above(magnitudes, thresholds),
        (magnitudes > level).to(magnitudes.dtype) @ counted,
        magnitudes.norm(dim=1),
        effective_number(magnitudes, magnitudes.sum(dim=1)),
        *count_above(scaled, shares),
        scaled.sum(dim=1),
    ]
