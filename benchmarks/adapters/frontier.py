"""From edits at many strengths to what is gained at a budget."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...adapters.amplitude import Amplitude
from .scores import Cost, Elsewhere

STRENGTHS = (0.2, 0.5, 1.0, 1.5)
"""Of an edit as it was learnt."""
ENOUGH = 2.0
"""Times the largest budget: stronger edits than one beyond it are not measured."""
COSTS = ("kl", "moved", "drift")


def trace(
    model: Any,
    waypoints: dict[int, dict[str, Tensor]],
    loss: Callable[[Any], float],
    elsewhere: Elsewhere,
    largest: float,
) -> pd.DataFrame:
    """A row for every point of training and strength: ``step``, ``strength``, ``loss`` and
    :class:`Cost`.

    Args:
        model: a PEFT model; it is changed.
        waypoints: its parameters after some steps.
        loss: of the topic.
        elsewhere: what measures the cost.
        largest: the largest budget of KL.

    """
    network, rows = model.get_base_model(), []
    for step, values in waypoints.items():
        set_values(model, values)
        amplitude = Amplitude(model)
        for strength in STRENGTHS:
            amplitude.set(strength)
            cost: Cost = elsewhere.cost(network)
            rows.append({"step": step, "strength": strength, "loss": loss(network)} | vars(cost))
            # The edit as it is learnt is measured whatever it costs: forecasts are of it.
            if strength >= 1 and not cost.kl <= ENOUGH * largest:
                break
    return pd.DataFrame(rows)


@torch.no_grad()
def set_values(model: Any, values: dict[str, Tensor]) -> None:
    """Give a model trained parameters."""
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])


def gain_at(points: pd.DataFrame, cost: str, budget: float) -> float:
    """The most that is gained at a cost within the budget, over the points of training: on each way from
    no edit through rising strengths gain is interpolated linearly in the cost's square root (to first
    order gain grows as an edit does, and KL as its square).

    Args:
        points: of :func:`trace`, with ``gain``.
        cost: its column.
        budget: of it.

    """
    best = 0.0
    for _, way in points.groupby("step"):
        ordered = way.sort_values("strength")
        roots = np.sqrt(np.concatenate([[0.0], ordered[cost].to_numpy(dtype=np.float64)]))
        gains = np.concatenate([[0.0], ordered["gain"].to_numpy(dtype=np.float64)])
        best = max(best, _best_within(roots, gains, float(np.sqrt(budget))))
    return best


def _best_within(roots: np.ndarray, gains: np.ndarray, limit: float) -> float:
    within = roots <= limit
    first = int(np.argmin(within)) if not within.all() else len(roots)
    found = float(gains[:first].max())
    if first < len(roots) and np.isfinite(gains[first]) and np.isfinite(roots[first]):
        share = (limit - roots[first - 1]) / (roots[first] - roots[first - 1])
        found = max(found, float(gains[first - 1] + share * (gains[first] - gains[first - 1])))
    return found
