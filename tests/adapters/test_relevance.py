"""Features that are worth training: the choice is the best there is where that is known."""

from itertools import combinations

import numpy as np
import pytest
import torch
from cleansteer.adapters.gradients import TextGradients
from cleansteer.adapters.relevance import choose, fitting_count, scores, worth

N_TOKENS = 4000


def drawn(fisher: np.ndarray, n_texts: int, seed: int = 0) -> TextGradients:
    """Gradients of texts whose second moment a token is ``fisher``."""
    rng = np.random.default_rng(seed)
    scale = N_TOKENS / n_texts
    texts = rng.multivariate_normal(np.zeros(len(fisher)), fisher * scale, n_texts)
    return TextGradients(torch.tensor(texts), N_TOKENS)


def test_by_gradient_the_largest_win() -> None:
    gradient = np.array([0.1, -3.0, 0.0, 2.0, 0.5])
    assert choose(gradient, None, 2).indices.tolist() == [1, 3]


def test_ties_go_to_the_lower_index() -> None:
    assert choose(np.array([1.0, -2.0, 2.0, -1.0]), None, 3).indices.tolist() == [0, 1, 2]


def test_by_fisher_a_cheap_feature_beats_a_dear_one() -> None:
    gradient = np.array([1.0, 1.0, 0.5, 0.1])
    sampled = drawn(np.diag([4.0, 0.01, 0.01, 1.0]), 400)
    assert choose(gradient, sampled, 2, "fisher").indices.tolist() == [1, 2]
    assert choose(gradient, sampled, 2, "gradient").indices.tolist() == [0, 1]
    assert scores(gradient, sampled).argmax() == 1


@pytest.mark.parametrize("seed", range(4))
def test_where_features_cost_together_the_block_pays(seed: int) -> None:
    """Copies of one direction are worth one of them: the block takes others, and says so; its choice is
    nearly the best of all choices.
    """
    rng = np.random.default_rng(seed)
    loadings = np.repeat(rng.normal(size=(3, 6)), 3, axis=0)
    fisher = loadings @ loadings.T + 0.05 * np.eye(9)
    gradient = np.repeat([1.0, 0.9, 0.8], 3) * np.sqrt(fisher.diagonal())
    found = choose(gradient, drawn(fisher, 3000, seed), 3, "fisher")
    assert "block" in found.told
    best = max(worth(gradient[list(s)], fisher[np.ix_(s, s)]) for s in combinations(range(9), 3))
    ours = worth(gradient[found.indices], fisher[np.ix_(found.indices, found.indices)])
    assert ours > 0.9 * best


def test_where_they_do_not_nothing_is_lost() -> None:
    """Features that cost apart: whichever is taken, its choice is nearly the best of all."""
    rng = np.random.default_rng(0)
    gradient, costs = rng.normal(size=200), rng.uniform(0.1, 3, 200)
    found = choose(gradient, drawn(np.diag(costs), 400), 20, "fisher")
    assert (np.diff(found.indices) > 0).all()
    worths = np.square(gradient) / costs
    assert worths[found.indices].sum() > 0.97 * np.sort(worths)[-20:].sum()


def test_one_text_of_reference_is_enough_for_the_diagonal() -> None:
    sampled = drawn(np.diag([4.0, 0.01, 0.01]), 1)
    found = choose(np.array([1.0, 1.0, 0.5]), sampled, 2, "fisher")
    assert "diagonal" in found.told
    assert len(found.indices) == 2


def test_a_feature_that_never_fires_on_the_reference_is_not_free() -> None:
    gradient = np.array([1e-6, 1.0])
    sampled = drawn(np.diag([0.0, 1.0]), 100)
    assert np.isfinite(scores(gradient, sampled)).all()
    assert choose(gradient, sampled, 1, "fisher").indices.tolist() == [1]


def test_units_of_features_do_not_count_by_fisher() -> None:
    """What is learnt may be in any unit: g and F change together."""
    rng = np.random.default_rng(1)
    gradient, fisher = rng.normal(size=12), np.diag(rng.uniform(0.5, 2, 12))
    units = rng.uniform(0.1, 10, 12)
    one = drawn(fisher, 500)
    other = TextGradients(one.by_text * torch.tensor(units), N_TOKENS)
    same = choose(gradient, one, 4, "fisher").indices
    assert choose(gradient * units, other, 4, "fisher").indices.tolist() == same.tolist()


def test_a_count_where_nobody_gives_one() -> None:
    few = np.zeros(1000)
    few[:60] = 1.0
    assert fitting_count(few) == 57  # 95 % of 60
    few[10:60] = 0.0
    assert fitting_count(few) == 50
    assert fitting_count(np.ones(1000)) is None
    assert fitting_count(few[:150]) is None  # no more than 50 of 150 would be taken
    assert fitting_count(np.zeros(1000)) is None
