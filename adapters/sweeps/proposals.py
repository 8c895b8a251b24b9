"""What a sweep tries next: a function of what was tried, and of nothing else, so that an interrupted
sweep goes on as it would have gone.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.records.sweep import Point, Sampler, SearchSpace, Trial
from .space import grid

_AT_RANDOM = 8
"""Trials before the estimator has enough to go by."""
_TRIES = 20
"""Proposals of what was tried already, before any other combination is taken."""


def propose(
    space: SearchSpace, sampler: Sampler, trials: Sequence[Trial], seed: int
) -> Point | None:
    """What to try after some trials; None: all combinations were tried.

    Args:
        space: what may be tried.
        sampler: how it is chosen.
        trials: those that are done; one that failed counts as worse than any other.
        seed: of all that is drawn.

    """
    if space.size is None:
        return _by_tpe(space, trials, seed, 0)
    tried = {trial.point for trial in trials}
    points = grid(space)
    order = np.random.default_rng(seed).permutation(len(points))
    left: list[Point] = [points[i] for i in order.tolist() if points[i] not in tried]
    if not left:
        return None
    if sampler == "tpe":
        proposals = (_by_tpe(space, trials, seed, number) for number in range(_TRIES))
        return next((point for point in proposals if point not in tried), left[0])
    return left[0]


def _by_tpe(space: SearchSpace, trials: Sequence[Trial], seed: int, number: int) -> Point:
    """By Optuna's estimator, made anew of the trials: its state is theirs."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = _distributions(space)
    sequence = np.random.SeedSequence((seed, len(trials), number))
    drawn = int(sequence.generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=drawn, n_startup_trials=_AT_RANDOM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=sampler)
        for trial in trials:
            study.add_trial(
                create_trial(
                    params=_encoded(trial.point, distributions),
                    distributions=distributions,
                    value=float("inf") if trial.chosen_by is None else trial.chosen_by.after,
                    state=TrialState.COMPLETE,
                )
            )
        asked = study.ask(distributions).params
    return _decoded(space, asked)


def _distributions(space: SearchSpace) -> dict[str, Any]:
    """Of what has several values; lists by their places, which are always of one type."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for name, values in _values(space).items():
        if name == "learning_rate" and space.is_range:
            found[name] = FloatDistribution(*space.learning_rates, log=True)
        elif len(values) > 1:
            found[name] = CategoricalDistribution([str(value) for value in values])
    return found


def _values(space: SearchSpace) -> dict[str, list[Any]]:
    return {
        "learning_rate": list(space.learning_rates),
        "component": list(space.components),
        "beta2": list(space.beta2),
        "select": list(space.select),
    }


def _encoded(point: Point, distributions: dict[str, Any]) -> dict[str, Any]:
    given = point.model_dump()
    return {
        name: given[name] if hasattr(distribution, "log") else str(given[name])
        for name, distribution in distributions.items()
    }


def _decoded(space: SearchSpace, asked: dict[str, Any]) -> Point:
    entries: dict[str, Any] = {}
    for name, values in _values(space).items():
        if name not in asked:
            entries[name] = values[0]
        elif name == "learning_rate" and space.is_range:
            # As people write it, so that a training by hand is the same.
            low, high = space.learning_rates
            entries[name] = min(max(float(f"{asked[name]:.3g}"), low), high)
        else:
            entries[name] = next(value for value in values if str(value) == asked[name])
    return Point(**entries)
