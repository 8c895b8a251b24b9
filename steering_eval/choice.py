"""Which features are labelled, and in which contexts each of them is steered."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.settings import Setting

ELIGIBLE = (0.002, 0.5)
"""Least and greatest final_act_freq of a feature that is worth labelling
(docs/protocol.md, Steering and its labels)."""
LEAST_FIRST = 30
"""Fewest features of the first round of ``uncertain``: a predictor has to be fitted on them."""


def eligible_features(features: pd.DataFrame) -> NDArray[np.int64]:
    """List the features with 0.002 <= final_act_freq <= 0.5 by falling frequency.

    Ties go to the lower index.

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    frequency = features["final_act_freq"].to_numpy()
    inside = np.flatnonzero((frequency >= ELIGIBLE[0]) & (frequency <= ELIGIBLE[1]))
    order = np.lexsort((features["feature"].to_numpy()[inside], -frequency[inside]))
    return features["feature"].to_numpy()[inside[order]]


def some_eligible(features: pd.DataFrame, name: str) -> NDArray[np.int64]:
    """:func:`eligible_features` of the setting of that name.

    Raises:
        InputError: there is none.

    """
    eligible = eligible_features(features)
    if len(eligible) == 0:
        raise InputError(
            f"no feature of setting {name!r} fires in {ELIGIBLE[0]:.1%} to {ELIGIBLE[1]:.0%} "
            "of the contexts, expected some; give more contexts, or check that the SAE belongs to "
            "the model"
        )
    return eligible


def sample_features(features: pd.DataFrame, setting: Setting) -> NDArray[np.int64]:
    """Choose the features to label: all eligible ones, or ``n_features`` of them, in rising order.

    ``frequency-spread`` takes even ranks by frequency (the paper), ``uniform`` a seeded random draw
    (the replication). For ``uncertain`` it is the first of two rounds: half of them, at least 30,
    at even ranks; :func:`add_uncertain` completes the sample.

    Raises:
        InputError: no feature is eligible.

    """
    eligible = some_eligible(features, setting.name)
    wanted = setting.steering.most_labelled
    if len(eligible) <= wanted:
        return np.sort(eligible)
    if setting.steering.sample == "uniform":
        generator = np.random.default_rng(setting.seed)
        return np.sort(generator.choice(np.sort(eligible), wanted, replace=False))
    if setting.steering.sample == "uncertain":
        wanted = min(wanted, max(wanted // 2, LEAST_FIRST))
    return np.sort(eligible[evenly(len(eligible), wanted)])


def evenly(n: int, wanted: int) -> NDArray[np.int64]:
    """Pick ``wanted`` of the numbers 0 to n - 1 at even distances, both ends among them; all of
    them, where there are no more.
    """
    return np.linspace(0, n - 1, min(n, wanted)).astype(np.int64)


def add_uncertain(
    eligible: NDArray[np.int64], first: NDArray[np.int64], uncertainty: pd.Series, n: int
) -> NDArray[np.int64]:
    """Add to the first round the ``n`` other eligible features with the highest uncertainty.

    Ties go to the lower index; all are added, where there are no more. In rising order.

    Args:
        eligible: features that may be labelled.
        first: features of the first round.
        uncertainty: of every eligible feature outside the first round, indexed by feature.
        n: how many are added.

    Source: the choice of query by committee (Seung, Opper and Sompolinsky, COLT 1992).

    """
    others = np.setdiff1d(eligible, first)
    order = np.argsort(-uncertainty.loc[others.tolist()].to_numpy(), kind="stable")
    return np.union1d(first, others[order[:n]])


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

    def among(self, chosen: NDArray[np.bool_]) -> "Plan":
        """The plan of some of the features."""
        kept = np.flatnonzero(chosen).tolist()
        return Plan(
            self.features[kept], [self.members[i] for i in kept], [self.union[i] for i in kept]
        )


def choose_contexts(
    activations: Float[np.ndarray, " context"], per_type: int, order: Int[np.ndarray, " context"]
) -> dict[str, NDArray[np.int64]]:
    """Choose the contexts of one feature, from its final activations.

    ``top``: the ``per_type`` highest, ``low``: the lowest, ties to the lower index; ``random``: the
    first ``per_type`` of the seeded permutation ``order`` that are in neither; ``mixed``: the union
    of the three. A feature that fires in fewer than ``per_type`` contexts shares contexts of
    activation 0 between top and low, so its union is smaller.

    One permutation serves all features, so that they are compared on the same random contexts and
    a feature's contexts do not depend on its index.

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    top = np.argsort(-activations, kind="stable")[:per_type]
    low = np.argsort(activations, kind="stable")[:per_type]
    taken = np.zeros(len(activations), dtype=bool)
    taken[top] = taken[low] = True
    drawn = order[~taken[order]][:per_type]
    mixed = np.unique(np.concatenate([top, low, drawn]))
    return {"mixed": mixed, "top": np.sort(top), "random": np.sort(drawn), "low": np.sort(low)}


def split_contexts(types: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Split a feature's contexts into two disjoint halves with equally many of each type, give or
    take one: contexts of a type stand together and go to the halves in turn.
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
    features: NDArray[np.int64],
    final_activations: scipy.sparse.csc_array,
    per_type: int,
    seed: int,
) -> Plan:
    """Plan every feature in its own top, low and random contexts, ``per_type`` of each, and in two
    halves of them all.

    Raises:
        InputError: there are fewer contexts than the three types need.

    """
    n_contexts = final_activations.shape[0]
    if n_contexts < 3 * per_type:
        raise InputError(
            f"{n_contexts} contexts are too few for contexts_per_type = {per_type}, expected at least "
            f"{3 * per_type}; raise `n_contexts` or lower `contexts_per_type`"
        )
    order = np.random.default_rng(seed).permutation(n_contexts)
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
    """Plan every feature in every context; the context type is called ``name``."""
    every = np.arange(n_contexts)
    return Plan(features, [{name: every} for _ in features], [every for _ in features])
