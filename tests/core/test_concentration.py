"""Concentration of magnitudes against plain numpy, where it is easy and where it is not."""

import math

import numpy as np
import pytest
import torch
from cleansteer.core.concentration import (
    MASS_SIZES,
    effective_number,
    entropy_of_magnitudes,
    mass_fractions,
    sums_of_largest,
)
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}  # sums of up to 20,000 entries, rounded
WIDTHS = (1, 7, 120, 500, 3000, 7999, 8000, 20_000)
"""Fewer entries than every k, between them, and on both sides of where rows stop being sorted."""
SHAPES = (
    "half-normal",
    "log-normal",
    "cauchy",
    "integers",
    "constant",
    "few not zero",
    "one not zero",
    "zero",
    "rising",
)


def row(shape: str, width: int, generator: np.random.Generator) -> Array:
    zeros = np.zeros(width)
    if shape == "half-normal":
        return np.abs(generator.normal(size=width))
    if shape == "log-normal":
        return generator.lognormal(sigma=3.0, size=width)
    if shape == "cauchy":
        return np.abs(generator.standard_cauchy(size=width))
    if shape == "integers":  # ties everywhere, at the edge of every k too
        return generator.integers(0, 3, size=width).astype(np.float64)
    if shape == "constant":
        return np.full(width, 0.3)
    if shape == "few not zero":
        zeros[generator.permutation(width)[:30]] = generator.random(min(30, width)) + 0.1
    elif shape == "one not zero":
        zeros[generator.integers(width)] = 1e4
    elif shape == "rising":
        return np.arange(width) / width
    return zeros


def rows(width: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Every shape three times, in any order: no row may depend on those before it."""
    generator = np.random.default_rng(seed)
    made = [row(shape, width, generator) for shape in SHAPES for _ in range(3)]
    return torch.tensor(np.array(made)[generator.permutation(len(made))], dtype=dtype)


def plain_entropy(values: Array) -> float:
    if not values.any():
        return 0.0
    p = values[values > 0] / values.sum()
    return float(-(p * np.log(p)).sum())


def plain_fraction(values: Array, k: int) -> float:
    return float(np.sort(values)[::-1][:k].sum() / values.sum()) if values.any() else 0.0


def both(values: torch.Tensor) -> tuple[torch.Tensor, list[Array]]:
    return values.sum(dim=-1), list(values.double().numpy())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", WIDTHS)
def test_entropy_and_effective_number_equal_numpy(width: int, dtype: torch.dtype) -> None:
    values = rows(width, dtype)
    total, plain = both(values)
    expected = [plain_entropy(v) for v in plain]
    scale = TOLERANCE[dtype] * math.log(width + 1)
    np.testing.assert_allclose(entropy_of_magnitudes(values, total), expected, atol=scale)
    counts = [math.exp(e) if v.any() else 0.0 for e, v in zip(expected, plain, strict=True)]
    np.testing.assert_allclose(effective_number(values, total), counts, rtol=2 * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", WIDTHS)
def test_mass_fractions_equal_numpy(width: int, dtype: torch.dtype) -> None:
    values = rows(width, dtype)
    total, plain = both(values)
    expected = [[plain_fraction(v, k) for k in MASS_SIZES] for v in plain]
    np.testing.assert_allclose(mass_fractions(values, total), expected, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("width", WIDTHS)
def test_sums_of_the_largest_equal_numpy_to_the_last_digit(width: int) -> None:
    values = rows(width, torch.float32)
    plain = np.sort(values.double().numpy(), axis=1)[:, ::-1].cumsum(axis=1)
    expected = plain[:, [min(k, width) - 1 for k in MASS_SIZES]]
    np.testing.assert_allclose(sums_of_largest(values), expected, rtol=1e-12)


@pytest.mark.parametrize("width", [120, 20_000])
def test_no_row_depends_on_its_neighbours(width: int) -> None:
    values = rows(width, torch.float32)
    total = values.sum(dim=1)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
    for measure in (mass_fractions, entropy_of_magnitudes, effective_number):
        together = measure(values, total)
        torch.testing.assert_close(measure(values[order], total[order]), together[order])
        alone = torch.cat([measure(v[None], t[None]) for v, t in zip(values, total, strict=True)])
        torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("width", [120, 20_000])
def test_order_of_entries_and_zeros_beside_them_change_nothing(width: int) -> None:
    values = rows(width, torch.float64)
    total = values.sum(dim=1)
    order = torch.randperm(width, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([values[:, order], torch.zeros(len(values), 9000)], dim=1)
    for measure in (mass_fractions, entropy_of_magnitudes, effective_number):
        torch.testing.assert_close(measure(padded, total), measure(values, total))


@pytest.mark.parametrize("scale", [1e-18, 3.7, 1e18])
def test_concentration_has_no_unit(scale: float) -> None:
    values = rows(8000, torch.float64)
    for measure in (mass_fractions, entropy_of_magnitudes, effective_number):
        torch.testing.assert_close(
            measure(values * scale, values.sum(dim=1) * scale),
            measure(values, values.sum(dim=1)),
        )


def test_entropies_of_independent_choices_add_up() -> None:
    one, other = rows(40, torch.float64), rows(30, torch.float64, seed=1)
    kept = (one.sum(dim=1) > 0) & (other.sum(dim=1) > 0)
    one, other = one[kept], other[kept]
    joint = (one[:, :, None] * other[:, None, :]).flatten(1)

    def entropy(values: torch.Tensor) -> torch.Tensor:
        return entropy_of_magnitudes(values, values.sum(dim=1))

    torch.testing.assert_close(entropy(joint), entropy(one) + entropy(other))


@pytest.mark.parametrize("width", WIDTHS)
def test_bounds(width: int) -> None:
    values = rows(width, torch.float64)
    total = values.sum(dim=1)
    fractions, effective = mass_fractions(values, total), effective_number(values, total)
    assert (fractions.diff(dim=1) >= 0).all()
    assert (fractions <= 1 + 1e-12).all()
    whole = (values > 0).sum(dim=1) <= MASS_SIZES[0]
    torch.testing.assert_close(fractions[whole, 0], (total[whole] > 0).double())
    assert (effective <= (values > 0).sum(dim=1).double() * (1 + 1e-9)).all()
    assert (effective[total > 0] >= 1 - 1e-9).all()
    assert (effective[total == 0] == 0).all()


def test_equal_entries_count_as_many_as_they_are() -> None:
    for n in (1, 2, 17, 9000):
        values = torch.full((1, n), 0.01, dtype=torch.float64)
        assert effective_number(values, values.sum(dim=1)).item() == pytest.approx(n)


@pytest.mark.parametrize("shape", [(120,), (4, 120), (2, 3, 120)])
def test_entropy_takes_any_rows(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat = values.reshape(-1, 120)
    expected = entropy_of_magnitudes(flat, flat.sum(dim=1))
    torch.testing.assert_close(
        entropy_of_magnitudes(values, values.sum(dim=-1)), expected.reshape(shape[:-1])
    )


def test_arguments_are_left_alone() -> None:
    values = rows(8000, torch.float32)
    before, total = values.clone(), values.sum(dim=1)
    mass_fractions(values, total)
    effective_number(values, total)
    assert torch.equal(values, before)
