"""Which features are labelled; contexts of a feature, and their two halves."""

from collections.abc import Mapping

import minimal
import numpy as np
import oracle
import pandas as pd
import pytest
from cleansteer.steering_eval.choice import (
    HALVES,
    LEAST_FIRST,
    add_uncertain,
    choose_contexts,
    eligible_features,
    evenly,
    sample_features,
    split_contexts,
)
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


def statistics(n: int, seed: int = 0) -> pd.DataFrame:
    """Features that fire at all rates, with ties, some too rarely or too often to be labelled."""
    frequency = np.random.default_rng(seed).integers(0, n, n) / n
    return pd.DataFrame({"feature": np.arange(n), "final_act_freq": frequency})


def sampled(table: pd.DataFrame, strategy: str, n: int, seed: int = 0) -> list[int]:
    setting = minimal.setting(seed=seed).replace("steering", sample=strategy, n_features=n)
    return sample_features(table, setting).tolist()


@pytest.mark.parametrize("strategy", ["frequency-spread", "uniform"])
@pytest.mark.parametrize("n", [1, 2, 30, 61])
def test_a_sample_is_so_many_eligible_features_and_the_same_each_time(
    strategy: str, n: int
) -> None:
    table = statistics(200)
    found = sampled(table, strategy, n)
    assert found == sorted(set(found)) == sampled(table, strategy, n)
    assert len(found) == n
    assert set(found) <= set(eligible_features(table))


def test_a_uniform_sample_follows_the_seed_alone() -> None:
    table = statistics(200)
    found = sampled(table, "uniform", 40)
    assert sampled(table, "uniform", 40, seed=1) != found
    assert sampled(table.iloc[::-1], "uniform", 40) == found
    assert sampled(table, "frequency-spread", 40, seed=1) == sampled(table, "frequency-spread", 40)


@pytest.mark.parametrize("strategy", ["frequency-spread", "uniform", "uncertain"])
def test_all_are_labelled_where_there_are_no_more(strategy: str) -> None:
    table = statistics(60)
    eligible = np.sort(eligible_features(table)).tolist()
    for n in (len(eligible), len(eligible) + 1, 1000):
        assert sampled(table, strategy, n) == eligible


@pytest.mark.parametrize("n", [10, 29, 30, 31, 59, 60, 61, 80, 91])
def test_the_first_round_of_uncertain_is_the_spread_sample_of_half(n: int) -> None:
    table = statistics(300)
    half = min(n, max(n // 2, LEAST_FIRST))
    assert sampled(table, "uncertain", n) == sampled(table, "frequency-spread", half)


@pytest.mark.parametrize(("n", "wanted"), [(1, 1), (1, 5), (7, 7), (7, 9), (100, 2), (100, 33)])
def test_even_distances(n: int, wanted: int) -> None:
    found = evenly(n, wanted)
    assert len(set(found.tolist())) == len(found) == min(n, wanted)
    assert set(found[[0, -1]].tolist()) <= {0, n - 1}
    assert np.ptp(np.diff(found)) <= 1 if len(found) > 1 else found == [0]


@pytest.mark.parametrize("n", [0, 1, 5, 17, 100])
@pytest.mark.parametrize("seed", range(5))
def test_the_least_certain_are_added_ties_to_the_lower_index(n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    eligible = generator.permutation(500)[:60]
    first = np.sort(eligible[:20])
    unsure = pd.Series(generator.integers(0, 4, 40) / 4, index=eligible[20:])
    found = add_uncertain(eligible, first, unsure, n)
    expected = sorted(unsure.index, key=lambda feature: (-unsure[feature], feature))[:n]
    assert found.tolist() == sorted([*first, *expected])
    order = generator.permutation(40)
    again = add_uncertain(eligible[::-1], first, unsure.iloc[order], n)
    assert again.tolist() == found.tolist()


def test_labelled_features_are_not_taken_twice_however_uncertain() -> None:
    unsure = pd.Series([9.0, 1.0, 2.0, 8.0], index=[3, 4, 5, 6])
    found = add_uncertain(np.array([6, 5, 4, 3]), np.array([3, 6]), unsure, 1)
    assert found.tolist() == [3, 5, 6]
