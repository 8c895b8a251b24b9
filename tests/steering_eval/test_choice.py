"""Contexts of a feature, and their two halves."""

from collections.abc import Mapping

import numpy as np
import oracle
import pytest
from cleansteer.steering_eval.choice import HALVES, choose_contexts, split_contexts
from numpy.typing import NDArray

N_CONTEXTS = 200
TYPES = ("top", "random", "low")


def chosen(per_type: int, share: float, seed: int) -> tuple[NDArray[np.float64], Mapping]:
    """Activations of a feature that fires in a share of the contexts, and its contexts."""
    generator = np.random.default_rng([seed, per_type])
    fires = generator.permutation(N_CONTEXTS) < share * N_CONTEXTS
    activations = generator.integers(1, 9, N_CONTEXTS) / 4 * fires  # with ties
    order = generator.permutation(N_CONTEXTS)
    return activations, choose_contexts(activations, per_type, order)


def split_evenly(contexts: NDArray[np.int64], halves: Mapping[str, NDArray[np.int64]]) -> bool:
    first, second = (len(np.intersect1d(contexts, half)) for half in halves.values())
    assert first + second == len(contexts)
    return abs(first - second) <= 1


@pytest.mark.parametrize("share", [0.0, 0.005, 0.025, 0.3, 0.97])
@pytest.mark.parametrize("per_type", [2, 5, 6, 16])
@pytest.mark.parametrize("seed", range(4))
def test_halves_are_disjoint_and_together_all_contexts(
    per_type: int, share: float, seed: int
) -> None:
    _, types = chosen(per_type, share, seed)
    halves = split_contexts(types)
    assert tuple(halves) == HALVES
    together = np.concatenate(list(halves.values()))
    assert len(together) == len(set(together.tolist())) == len(types["mixed"])
    assert sorted(together) == types["mixed"].tolist()
    assert all((np.diff(half) > 0).all() for half in halves.values())
    assert split_evenly(types["mixed"], halves)


@pytest.mark.parametrize("share", [0.3, 0.97])
@pytest.mark.parametrize("per_type", [2, 5, 6, 16])
@pytest.mark.parametrize("seed", range(4))
def test_halves_have_as_many_of_each_type(per_type: int, share: float, seed: int) -> None:
    _, types = chosen(per_type, share, seed)
    halves = split_contexts(types)
    assert len(types["mixed"]) == 3 * per_type  # the types do not overlap
    for name in TYPES:
        assert split_evenly(types[name], halves), name


@pytest.mark.parametrize("share", [0.005, 0.015])
@pytest.mark.parametrize("per_type", [5, 6, 16])
@pytest.mark.parametrize("seed", range(4))
def test_halves_of_features_that_fire_rarely_have_as_many_of_each_type(
    per_type: int, share: float, seed: int
) -> None:
    """A feature that fires in fewer contexts than a type has shares some between top and low."""
    _, types = chosen(per_type, share, seed)
    halves = split_contexts(types)
    assert len(types["mixed"]) < 3 * per_type
    for name in TYPES:
        assert split_evenly(types[name], halves), name


def test_halves_are_the_same_each_time_and_whatever_the_order_of_types() -> None:
    _, types = chosen(16, 0.3, 0)
    before = {name: some.copy() for name, some in types.items()}
    once, again = split_contexts(types), split_contexts(dict(reversed(types.items())))
    for name in HALVES:
        assert np.array_equal(once[name], again[name])
    for name, some in types.items():
        assert np.array_equal(some, before[name])


def test_neither_half_has_the_higher_activations() -> None:
    """Over many features, a feature's activations are as high in one half as in the other."""
    differences = []
    for seed in range(300):
        activations, types = chosen(16, 0.3, seed)
        first, second = (activations[half].mean() for half in split_contexts(types).values())
        differences.append(first - second)
    error = np.std(differences) / np.sqrt(len(differences))
    assert abs(np.mean(differences)) < 3.5 * error
    assert np.std(differences) > 0.01


@pytest.mark.parametrize("share", [0.0, 0.005, 0.025, 0.3, 0.97])
@pytest.mark.parametrize("per_type", [2, 5, 16])
def test_contexts_are_the_protocols(per_type: int, share: float) -> None:
    activations, types = chosen(per_type, share, 7)
    generator = np.random.default_rng([7, per_type])
    generator.permutation(N_CONTEXTS), generator.integers(1, 9, N_CONTEXTS)
    expected = oracle.choose_contexts(activations, per_type, generator.permutation(N_CONTEXTS))
    assert types.keys() == expected.keys()
    for name, some in expected.items():
        assert types[name].tolist() == sorted(some), name
