"""How many contexts: never fewer than before, never past the budget, enough where labels behave."""

from itertools import pairwise

import numpy as np
import pytest
from cleansteer.core.records import PilotStep
from cleansteer.core.settings import SteeringSetting
from cleansteer.predictor.model import ABSOLUTE
from cleansteer.study.pilot import BUDGET, Goal

FEWEST = 6
REACHED = 1e-9
"""A reliability that is predicted to be reached exactly may be missed by rounding."""


def step(number: int, worst: float) -> PilotStep:
    """A step with this reliability of its worst label, and better ones of the others."""
    reliability = dict.fromkeys(ABSOLUTE.judged, min(1.0, worst + 0.2)) | {
        ABSOLUTE.judged[1]: worst
    }
    return PilotStep(contexts_per_type=number, reliability=reliability)


def brown(n: int, single: float) -> float:
    """Reliability of n contexts, where one has ``single``."""
    return n * single / (1 + (n - 1) * single)


def walk(goal: Goal, reliability: object) -> list[PilotStep]:
    steps: list[PilotStep] = []
    while (number := goal.next_number(steps)) is not None:
        steps.append(step(number, reliability(number)))  # type: ignore[operator]
        assert len(steps) <= goal.most
    return steps


@pytest.mark.parametrize("most", [6, 7, 24, 100])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_measured_numbers_rise_within_the_budget(most: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    goal = Goal(0.9, FEWEST, most)
    steps = walk(goal, lambda number: generator.uniform(-1, 1))
    numbers = [one.contexts_per_type for one in steps]
    assert numbers[0] == FEWEST
    assert all(number % FEWEST == 0 or number == most for number in numbers)
    assert numbers[-1] <= most
    for one, other in pairwise(numbers):
        assert other >= min(most, 1.25 * one)
    assert goal.reached(steps) or numbers[-1] == most
    assert not any(goal.reached(steps[:n]) for n in range(len(steps)))


@pytest.mark.parametrize("single", [0.01, 0.03, 0.2])
@pytest.mark.parametrize("asked", [0.3, 0.6, 0.8, 0.95])
def test_labels_that_obey_spearman_and_brown_take_two_steps_and_no_more_than_needed(
    single: float, asked: float
) -> None:
    goal = Goal(asked - REACHED, FEWEST, 10**6)
    steps = walk(goal, lambda number: brown(number, single))
    assert goal.reached(steps)
    assert len(steps) <= 2
    enough = steps[-1].contexts_per_type
    assert enough == FEWEST or brown(enough - FEWEST, single) < asked


@pytest.mark.parametrize("seed", range(10))
def test_more_is_never_taken_for_less(seed: int) -> None:
    """A higher aim, or a larger budget, never lowers the number."""
    generator = np.random.default_rng(seed)
    measured = np.sort(generator.uniform(0, 1, 200))  # it rises with the contexts
    for budgets in ([10, 24, 60, 150], [FEWEST]):
        taken = [walk(Goal(0.8, FEWEST, most), measured.__getitem__) for most in budgets]
        assert taken == sorted(taken, key=lambda steps: steps[-1].contexts_per_type)
    single = generator.uniform(0.01, 0.3)
    aims = [0.2, 0.5, 0.8, 0.9, 0.97]
    numbers = [
        walk(Goal(aim, FEWEST, 150), lambda n: brown(n, single))[-1].contexts_per_type
        for aim in aims
    ]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("worst", [0.0, -0.4])
def test_no_reliability_at_all_takes_the_whole_budget(worst: float) -> None:
    goal = Goal(0.5, FEWEST, 40)
    assert goal.next_number([step(FEWEST, worst)]) == 40


def test_every_label_has_to_reach_it() -> None:
    goal = Goal(0.5, FEWEST, 40)
    for name in ABSOLUTE.judged:
        low = PilotStep(
            contexts_per_type=FEWEST, reliability=dict.fromkeys(ABSOLUTE.judged, 0.9) | {name: 0.49}
        )
        assert not goal.reached([low])
        assert goal.next_number([low]) == 2 * FEWEST
    equal = PilotStep(contexts_per_type=FEWEST, reliability=dict.fromkeys(ABSOLUTE.judged, 0.5))
    assert goal.reached([equal])
    assert goal.next_number([equal]) is None


@pytest.mark.parametrize(
    ("budget", "n_contexts", "most"),
    [(None, 10**6, BUDGET * FEWEST), (15, 10**6, 15), (1000, 96, 32), (None, 3 * FEWEST, FEWEST)],
)
def test_the_budget_ends_where_the_contexts_do(
    budget: int | None, n_contexts: int, most: int
) -> None:
    steering = SteeringSetting(
        reliability=0.8, most_contexts_per_type=budget, contexts_per_type=FEWEST
    )
    assert Goal.of(steering, n_contexts) == Goal(0.8, FEWEST, most)
    assert Goal.of(SteeringSetting(contexts_per_type=FEWEST), n_contexts) is None
