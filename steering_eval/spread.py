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
) -> list[Float[Tensor, " row"]]:
    """Of each row: how many entries lie above each threshold, how many of the counted ones above the
    level, the norm, and as how many equal entries they count (exp of the entropy of their shares).

    Args:
        magnitudes: non-negative entries.
        thresholds: those whose crossings are counted.
        counted: 1 for the features whose crossings of ``level`` are counted, else 0.
        level: see ``counted``.

    """
    if magnitudes.device.type == "cpu" and magnitudes.dtype == torch.float32:
        return spread_by_loop(magnitudes, thresholds, counted, level)
    return spread_by_tensors(magnitudes, thresholds, counted, level)


def spread_by_loop(
    magnitudes: Float32[Tensor, "row feature"],
    thresholds: Sequence[float],
    counted: Float32[Tensor, " feature"],
    level: float,
) -> list[Float32[Tensor, " row"]]:
    """:func:`measure_spread` in one pass over each row while it lies in the processor's cache."""
    rows, levels, some = magnitudes.numpy(), torch.tensor(thresholds).numpy(), counted.numpy()
    values = torch.zeros(len(rows), 4 + len(thresholds), dtype=torch.float64)
    sums, single = values.numpy(), torch.tensor(level).numpy()[()]
    by_rows(lambda r: compiled.add_up(rows[r], levels, some, single, sums[r]), len(rows))
    total, weighted, square, among, *counts = values.unbind(dim=1)
    safe = total.clamp_min(_SMALLEST)
    effective = torch.where(total > 0, (safe.log() - weighted / safe).exp(), 0.0)
    return [each.to(magnitudes.dtype) for each in (*counts, among, square.sqrt(), effective)]


def spread_by_tensors(
    magnitudes: Float[Tensor, "row feature"],
    thresholds: Sequence[float],
    counted: Float[Tensor, " feature"],
    level: float,
) -> list[Float[Tensor, " row"]]:
    """:func:`measure_spread` on any device."""
    return [
        *count_above(magnitudes, thresholds),
        (magnitudes > level).to(magnitudes.dtype) @ counted,
        magnitudes.norm(dim=1),
        effective_number(magnitudes, magnitudes.sum(dim=1)),
    ]
