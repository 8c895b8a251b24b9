"""How far a change spreads over the panel: compiled loop and tensor operations against the definition."""

import numpy as np
import pytest
import torch
from cleansteer.steering_eval.spread import spread_by_loop, spread_by_tensors

THRESHOLDS, LEVEL, SHARES = (0.01, 0.05, 0.1), 0.05, (0.05, 0.2, 0.5)
N_ROWS = 7
ROUNDING = 2e-6
"""Of sums in float32: see test_sums.py."""
KINDS = ("normal", "heavy", "tiny", "none", "one", "some zeros", "at the thresholds")


def magnitudes(kind: str, width: int) -> torch.Tensor:
    values = torch.randn(N_ROWS, width, generator=torch.Generator().manual_seed(width)).abs_()
    if kind == "heavy":
        return (3 * values).exp().clamp(max=6000) * 0.01
    if kind == "tiny":
        return values * 1e-6
    if kind in ("none", "one"):
        values = torch.zeros_like(values)
        values[:, width // 2] = kind == "one"
    elif kind == "some zeros":
        values[:, ::3] = 0.0
    elif kind == "at the thresholds":
        values = torch.tensor(THRESHOLDS).repeat(width)[:width].expand(N_ROWS, -1).contiguous()
    return values


def counted(width: int) -> torch.Tensor:
    return (torch.arange(width) % 3 != 1).float()


def scales(width: int) -> torch.Tensor:
    """Powers of 2, so that dividing by them rounds nothing."""
    return 2.0 ** ((torch.arange(width) % 5) - 2)


def expected(values: torch.Tensor) -> list[np.ndarray]:
    """The definition, in float64; thresholds have the digits of the values."""
    a = values.double().numpy()
    levels = [float(torch.tensor(level, dtype=values.dtype)) for level in (*THRESHOLDS, LEVEL)]
    shares_of_scale = [float(torch.tensor(share, dtype=values.dtype)) for share in SHARES]
    relative = a / scales(a.shape[1]).double().numpy()
    total = a.sum(axis=1, keepdims=True)
    shares = a / np.where(total > 0, total, 1.0)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    some = counted(a.shape[1]).numpy() > 0
    return [
        *((a > level).sum(axis=1) for level in levels[:-1]),
        (a > levels[-1])[:, some].sum(axis=1),
        np.sqrt((a**2).sum(axis=1)),
        np.where(total[:, 0] > 0, np.exp(entropy), 0.0),
        *((relative > share).sum(axis=1) for share in shares_of_scale),
        relative.sum(axis=1),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 15, 2048, 5001])
def test_the_loop_equals_the_definition(kind: str, width: int) -> None:
    values = magnitudes(kind, width)
    found = spread_by_loop(values, THRESHOLDS, counted(width), LEVEL, scales(width), SHARES)
    for ours, theirs in zip(found, expected(values), strict=True):
        # The entropy's own rounding grows with its size, and exp makes it relative.
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=ROUNDING * np.log(width + 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 15, 2048])
def test_tensor_operations_equal_the_definition(kind: str, width: int) -> None:
    values = magnitudes(kind, width).double()
    some, units = counted(width).double(), scales(width).double()
    found = spread_by_tensors(values, THRESHOLDS, some, LEVEL, units, SHARES)
    for ours, theirs in zip(found, expected(values), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-12)
