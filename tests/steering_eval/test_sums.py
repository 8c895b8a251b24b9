"""Sums over the vocabulary: compiled loops and tensor operations against their definition."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from cleansteer.core.concentration import MASS_SIZES
from cleansteer.steering_eval import compiled, sums
from cleansteer.steering_eval.sums import COUNT_THRESHOLDS, SoftCap

# Of the terms of a sum in float32: it grows with how many of a chunk's 2,048 terms one lane of the
# processor's vector registers adds up, 64 in the widest, 512 in the narrowest; equal terms are worst.
ROUNDING = 2e-6
N_CONTEXTS = 3
N_QUERIES = 7
KINDS = ["normal", "heavy", "tiny", "large", "ties", "zero", "some zeros", "one"]


@pytest.fixture(params=[1, 3])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def changes(kind: str, width: int) -> torch.Tensor:
    """Float32 changes of logits of one kind."""
    generator = torch.Generator().manual_seed(width)
    values = torch.randn(N_QUERIES, width, generator=generator)
    if kind == "heavy":
        values = values.sign() * (3 * values).exp().clamp(max=6000) * 0.01
    elif kind in ("tiny", "large"):
        values = values * (1e-5 if kind == "tiny" else 4.0)
    elif kind == "ties":
        values = values.sign() * 0.25
    elif kind in ("zero", "one"):
        values = torch.zeros_like(values)
        values[:, width // 2] = kind == "one"
    elif kind == "some zeros":
        values[:, ::3] = 0.0
    return values


def clean(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean next-token shares of some contexts, and which context each query has."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(N_CONTEXTS, width, generator=generator)
    return logits.softmax(dim=1), torch.arange(N_QUERIES) * N_CONTEXTS // N_QUERIES


def loops(change: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sums, and sums of the largest, by compiled loops."""
    values, largest = sums.sum_by_loops(change, *clean(change.shape[1]))
    return values.numpy(), largest.numpy()


def plain(change: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64."""
    shares, owners = clean(change.shape[1])
    d, p = change.double().numpy(), shares.double().numpy()[owners]
    magnitudes = np.abs(d)
    logarithms = np.log(np.where(magnitudes > 0, magnitudes, 1.0))
    grown = p * np.expm1(d)
    columns = [
        magnitudes.sum(axis=1),
        (magnitudes * logarithms).sum(axis=1),
        grown.sum(axis=1),
        (grown * d).sum(axis=1),
        (p * d).sum(axis=1),
        magnitudes.max(axis=1),
        *((change.abs() > level).sum(dim=1).double().numpy() for level in COUNT_THRESHOLDS),
    ]
    ends = [min(k, change.shape[1]) - 1 for k in MASS_SIZES]
    largest = np.sort(magnitudes, axis=1)[:, ::-1].cumsum(axis=1)[:, ends]
    return np.stack(columns, axis=1), largest


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 15, 500, 2048, 8000, 8001, 9001, 20_000])
def test_compiled_loops_equal_the_definition(kind: str, width: int) -> None:
    change = changes(kind, width)
    values, largest = loops(change)
    expected, largest_expected = plain(change)
    # Each sum to the rounding of its terms: some of them cancel.
    terms = np.abs(expected)
    terms[:, 1:5] += np.abs(change.double().numpy()).max(axis=1, keepdims=True)
    assert (np.abs(values - expected) <= ROUNDING * terms).all()
    np.testing.assert_allclose(largest, largest_expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [15, 2048, 9001])
def test_tensor_operations_equal_the_definition(kind: str, width: int) -> None:
    change = changes(kind, width).double()
    shares, owners = clean(width)
    values, largest = sums.sum_by_tensors(change, shares[owners].double())
    expected, largest_expected = plain(change)
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(largest, largest_expected, rtol=1e-12)


@pytest.mark.parametrize("step", [0, 1, 7, 64, 500])
def test_the_last_of_the_largest_is_found_at_any_distance_from_the_first(step: int) -> None:
    k = max(MASS_SIZES)
    distances = (np.arange(1, 60) << 11) + (step << 17)
    for distance in (step << 17, *distances, ((step + 1) << 17) - 1, (step + 1) << 17):
        bits = np.float32(1.0).view(np.int32) - np.int32(distance)
        row = np.full((k + 200) * compiled.GROUP, 1e-6, dtype=np.float32)
        row[: k * compiled.GROUP : compiled.GROUP] = np.linspace(1.0, 0.999, k)
        row[(k - 1) * compiled.GROUP] = bits.view(np.float32)
        change = torch.from_numpy(row)[None]
        _, largest = loops(change.repeat(N_QUERIES, 1))
        expected = np.sort(row.astype(np.float64))[::-1].cumsum()[[n - 1 for n in MASS_SIZES]]
        np.testing.assert_allclose(largest, np.tile(expected, (N_QUERIES, 1)), rtol=1e-13)


def test_exponential_and_logarithm_keep_their_digits() -> None:
    sizes = np.concatenate([np.geomspace(1e-30, 80, 4001), [0.0]]).astype(np.float32)
    change = torch.from_numpy(np.concatenate([sizes, -sizes]))[:, None].contiguous()
    values, _ = sums.sum_by_loops(
        change, torch.ones(1, 1), torch.zeros(len(change), dtype=torch.long)
    )
    d = change[:, 0].double().numpy()
    magnitudes = np.abs(d)
    logarithms = np.log(np.where(magnitudes > 0, magnitudes, 1.0))
    np.testing.assert_allclose(values[:, 1], magnitudes * logarithms, rtol=3e-7)
    np.testing.assert_allclose(values[:, 2], np.expm1(d), rtol=3e-7)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bending_equals_the_difference_of_capped_logits(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    cap, first = 30.0, 5
    logits = 40 * torch.randn(N_CONTEXTS, 100, generator=generator, dtype=torch.float64)
    change = torch.randn(N_QUERIES, 120, generator=generator, dtype=torch.float64)
    change *= torch.logspace(-6, 3, N_QUERIES, dtype=torch.float64)[:, None]
    owners = torch.arange(N_QUERIES) % N_CONTEXTS
    steered, unsteered = (
        cap * torch.tanh(values / cap)
        for values in (logits[owners] + change[:, first : first + 100], logits[owners])
    )
    bent = change.to(dtype)
    SoftCap(logits.to(dtype), cap).bend(bent, owners, first)
    inside = bent[:, first : first + 100].double()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-7}[dtype]
    torch.testing.assert_close(inside, steered - unsteered, rtol=tolerance, atol=tolerance)
    for outside in (slice(0, first), slice(first + 100, None)):
        assert torch.equal(bent[:, outside], change[:, outside].to(dtype))


def test_a_number_that_is_none_is_not_hidden() -> None:
    change = changes("normal", 9001)
    change[2, 77] = torch.nan
    values, _ = loops(change)
    assert np.isnan(values[2, :5]).all()
    assert np.isfinite(values[[0, 1, 3, 4, 5, 6]]).all()


def test_both_ways_are_taken_and_agree() -> None:
    change, (shares, owners) = changes("heavy", 9001), clean(9001)
    fast, slow = sums.sum_up(change, shares, owners), loops(change)
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(one, other)
    exact = sums.sum_up(change.double(), shares.double(), owners)
    for one, other in zip(fast, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_loops_run_where_nothing_can_be_kept() -> None:
    program = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import torch\n"
        "from cleansteer.steering_eval.sums import sum_by_loops\n"
        "one = torch.ones(1, 1)\n"
        "values, _ = sum_by_loops(2 * one, one, torch.zeros(1, dtype=torch.long))\n"
        "print(values[0, 0].item())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "2.0\n", done.stderr
