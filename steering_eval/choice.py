"""Which features are labelled, and in which contexts each of them is steered."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.settings import Setting

ELIGIBLE = (0.002, 0.5)
"""Least and greatest final_act_freq of a feature that is worth labelling (protocol.md)."""


def eligible_features(features: pd.DataFrame) -> NDArray[np.int64]:
    """Features with 0.002 <= final_act_freq <= 0.5, by falling frequency, ties to the lower index.

    Source: protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    frequency = features["final_act_freq"].to_numpy()
    inside = np.flatnonzero((frequency >= ELIGIBLE[0]) & (frequency <= ELIGIBLE[1]))
    order = np.lexsort((features["feature"].to_numpy()[inside], -frequency[inside]))
    return features["feature"].to_numpy()[inside[order]]


def sample_features(features: pd.DataFrame, setting: Setting) -> NDArray[np.int64]:
    """The features to label: all eligible ones, or ``n_features`` of them, in rising order.

    ``frequency-spread`` takes even ranks by frequency (the paper), ``uniform`` a seeded random draw
    (the replication).

    Raises:
        InputError: no feature is eligible.

    """
    eligible = eligible_features(features)
    wanted = setting.steering.n_features
    if len(eligible) == 0:
        raise InputError(
            f"no feature of setting {setting.name!r} fires in {ELIGIBLE[0]:.1%} to {ELIGIBLE[1]:.0%} "
            "of the contexts, expected some; give more contexts, or check that the SAE belongs to "
            "the model"
        )
    if len(eligible) <= wanted:
        chosen = eligible
    elif setting.steering.sample == "frequency-spread":
        chosen = eligible[np.linspace(0, len(eligible) - 1, wanted).astype(int)]
    else:
        generator = np.random.default_rng(setting.seed)
        chosen = generator.choice(np.sort(eligible), wanted, replace=False)
    return np.sort(chosen)


HALVES = ("half-1", "half-2")
"""Names of the two disjoint halves of a feature's contexts, for the reliability of labels."""


@dataclass(frozen=True)
class Plan:
    """Which features are steered in which contexts: pairs, feature after feature."""

    features: NDArray[np.int64]
    members: list[Mapping[str, NDArray[np.int64]]]
    """For every feature, the contexts of each type, in rising order."""
    union: list[NDArray[np.int64]]
    """For every feature, all contexts it is steered in, in rising order."""

    @property
    def n_pairs(self) -> int:
        return sum(len(contexts) for contexts in self.union)


def choose_contexts(
    activations: NDArray[np.float64], per_type: int, order: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """The contexts of one feature, from its final activations ``[context]``.

    ``top``: the ``per_type`` highest, ``low``: the lowest, ties to the lower index; ``random``: the
    first ``per_type`` of the seeded permutation ``order`` that are in neither; ``mixed``: the union
    of the three. A feature that fires in fewer than ``per_type`` contexts shares contexts of
    activation 0 between top and low, so its union is smaller.

    One permutation serves all features, so that they are compared on the same random contexts and
    a feature's contexts do not depend on its index.

    Source: protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    top = np.argsort(-activations, kind="stable")[:per_type]
    low = np.argsort(activations, kind="stable")[:per_type]
    taken = np.zeros(len(activations), dtype=bool)
    taken[top] = taken[low] = True
    drawn = order[~taken[order]][:per_type]
    mixed = np.unique(np.concatenate([top, low, drawn]))
    return {"mixed": mixed, "top": np.sort(top), "random": np.sort(drawn), "low": np.sort(low)}


def split_contexts(types: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Two disjoint halves of a feature's contexts, with as many of each type (one more or less):
    they go to the two in turn, ordered so that those of a type stand together.
    """
    top, low = types["top"], types["low"]
    order = np.concatenate(
        [
            np.setdiff1d(top, low),
            np.intersect1d(top, low),
            np.setdiff1d(low, top),
            types["random"],
        ]
    )
    return {name: np.sort(order[i :: len(HALVES)]) for i, name in enumerate(HALVES)}


def plan_typed(
    features: NDArray[np.int64], final_activations: scipy.sparse.csc_array, setting: Setting
) -> Plan:
    """Every feature in its own top, low and random contexts, and in two halves of them all.

    Raises:
        InputError: there are fewer contexts than the three types need.

    """
    n_contexts = final_activations.shape[0]
    per_type = setting.steering.contexts_per_type
    if n_contexts < 3 * per_type:
        raise InputError(
            f"{n_contexts} contexts are too few for contexts_per_type = {per_type}, expected at least "
            f"{3 * per_type}; raise `n_contexts` or lower `contexts_per_type`"
        )
    order = np.random.default_rng(setting.seed).permutation(n_contexts)
    members = [
        choose_contexts(
            final_activations[:, [feature]].toarray().ravel().astype(np.float64), per_type, order
        )
        for feature in features
    ]
    return Plan(
        features,
        [types | split_contexts(types) for types in members],
        [types["mixed"] for types in members],
    )


def plan_all(features: NDArray[np.int64], n_contexts: int, name: str = "fresh") -> Plan:
    """Every feature in every context; the context type is called ``name``."""
    every = np.arange(n_contexts)
    return Plan(features, [{name: every} for _ in features], [every for _ in features])
