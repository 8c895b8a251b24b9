"""The check on fresh contexts: do features that are predicted to be clean steer cleanly?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from ..core.errors import InputError
from .blend import Blend
from .scores import Interval, percentile_interval
from .sets import statistics_of
from .targets import CLEAN_SCORE, HIGHER_IS_CLEANER, clean_score, keeps_tails

Array = NDArray[np.float64]

TRAINING_SHARE = 0.6
EFFECT_QUANTILES = (0.1, 0.9)
GROUP_SIZE = 50
GROUPS = ("predicted_clean", "predicted_messy", "random")
MEASURES = (
    "stability_abs",
    "collateral_per_effect",
    "collateral_count_0.05",
    "collateral_count_0.05_sparse",
    "effect_l2",
    "resid_delta_norm",
)
"""The protocol's two, and what they are made of and controlled by."""
RESAMPLES = 10_000
LEAST_LABELLED = 15


@dataclass(frozen=True)
class Groups:
    """The features that are steered afresh, by group, and how they were found."""

    features: Mapping[str, NDArray[np.int64]]
    n_training: int
    n_heldout: int
    n_matched: int


def check_enough(n_labelled: int) -> None:
    """Whether so many labelled features do for the fresh check.

    Raises:
        InputError: fewer than 15.

    """
    if n_labelled < LEAST_LABELLED:
        raise InputError(
            f"{n_labelled} labelled features are too few for the fresh check, expected at least "
            f"{LEAST_LABELLED}; raise `n_features` (--labels) or give more contexts"
        )


def choose_groups(statistics: pd.DataFrame, labels: pd.DataFrame, seed: int) -> Groups:
    """Predicted-clean, predicted-messy and random features, none of which the model was fitted on.

    Labelled features are split 60/40 (seeded); the predictor is fitted on the 60. Of the 40, those
    whose *predicted* effect_l2 lies between its 10 % and 90 % quantiles stay; the 50 highest and 50
    lowest predicted clean scores and 50 random others are taken, a third of what remains each where
    there are fewer than 150.

    Source: protocol.md, Held-out screening (arXiv:2606.08365).

    Args:
        statistics: ``[feature, statistic]`` of the labelled features, indexed by feature.
        labels: their labels, in the same order.

    Raises:
        InputError: fewer than 15 labelled features.

    """
    check_enough(len(labels))
    if not statistics.index.equals(labels.index):
        raise ValueError("statistics and labels are not of the same features in the same order")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    n_training = round(TRAINING_SHARE * len(labels))
    training, heldout = np.sort(order[:n_training]), np.sort(order[n_training:])
    X = np.ascontiguousarray(
        statistics[statistics_of(statistics.columns)].to_numpy(dtype=np.float64)
    )
    fitted_on = labels.iloc[training]
    known = {CLEAN_SCORE: clean_score(fitted_on), "effect_l2": fitted_on["effect_l2"]}
    predicted = pd.DataFrame(
        {
            target: Blend(seed, keeps_tails(target))
            .fit(X[training], y.to_numpy(dtype=np.float64))
            .predict(X[heldout])
            for target, y in known.items()
        },
        index=statistics.index[heldout],
    )
    low, high = predicted["effect_l2"].quantile(EFFECT_QUANTILES)
    matched = predicted[predicted["effect_l2"].between(low, high)]
    ranked = matched.sort_values(CLEAN_SCORE, ascending=False, kind="stable").index.to_numpy()
    size = min(GROUP_SIZE, len(ranked) // 3)
    others = ranked[size : len(ranked) - size]
    return Groups(
        features={
            "predicted_clean": np.sort(ranked[:size]),
            "predicted_messy": np.sort(ranked[len(ranked) - size :]),
            "random": np.sort(generator.choice(others, size, replace=False)),
        },
        n_training=n_training,
        n_heldout=len(heldout),
        n_matched=len(matched),
    )


@dataclass(frozen=True)
class Comparison:
    """One measure of two groups on fresh contexts."""

    measure: str
    other: str
    """The group that predicted_clean is compared with."""
    difference: Interval
    """Mean of predicted_clean minus mean of the other."""
    p_value: float
    """Two-sided Mann-Whitney."""

    @property
    def cleaner(self) -> bool | None:
        """Whether the interval lies on the side that means cleaner; None for neutral measures."""
        if self.measure not in HIGHER_IS_CLEANER:
            return None
        higher = HIGHER_IS_CLEANER[self.measure]
        return self.difference.above_zero if higher else self.difference.below_zero


@dataclass(frozen=True)
class FreshCheck:
    """What steering on fresh contexts said."""

    n_contexts: int
    group_size: int
    means: dict[str, dict[str, float]]
    """Group, then measure."""
    comparisons: list[Comparison]
    groups: Groups

    def comparison(self, measure: str, other: str = "predicted_messy") -> Comparison:
        """The comparison of one measure with one group."""
        return next(c for c in self.comparisons if (c.measure, c.other) == (measure, other))

    def to_json(self) -> dict[str, Any]:
        """Plain data for screening.json."""
        return {
            "n_contexts": self.n_contexts,
            "group_size": self.group_size,
            "n_training": self.groups.n_training,
            "n_heldout": self.groups.n_heldout,
            "n_matched": self.groups.n_matched,
            "features": {name: f.tolist() for name, f in self.groups.features.items()},
            "means": self.means,
            "comparisons": [asdict(c) | {"cleaner": c.cleaner} for c in self.comparisons],
        }


def compare_groups(groups: Groups, fresh: pd.DataFrame, seed: int) -> FreshCheck:
    """Group means and differences with 95 % percentile-bootstrap intervals and Mann-Whitney p.

    Args:
        groups: as chosen.
        fresh: labels on fresh contexts, indexed by feature.
        seed: of the resampling.

    Source: protocol.md, Held-out screening (arXiv:2606.08365).

    """
    measures = [measure for measure in MEASURES if measure in fresh]
    values = {
        group: {m: fresh.loc[features, m].to_numpy(dtype=np.float64) for m in measures}
        for group, features in groups.features.items()
    }
    generator = np.random.default_rng(seed)
    comparisons = []
    for other in GROUPS[1:]:
        for measure in measures:
            a, b = values["predicted_clean"][measure], values[other][measure]
            resampled = _resampled_mean(a, generator) - _resampled_mean(b, generator)
            comparisons.append(
                Comparison(
                    measure=measure,
                    other=other,
                    difference=percentile_interval(a.mean() - b.mean(), resampled),
                    p_value=float(mannwhitneyu(a, b, alternative="two-sided").pvalue),
                )
            )
    return FreshCheck(
        n_contexts=int(fresh["n_contexts"].iloc[0]),
        group_size=len(groups.features["predicted_clean"]),
        means={g: {m: float(v.mean()) for m, v in by.items()} for g, by in values.items()},
        comparisons=comparisons,
        groups=groups,
    )


def _resampled_mean(values: Array, generator: np.random.Generator) -> Array:
    draws = generator.integers(len(values), size=(RESAMPLES, len(values)))
    return np.asarray(values[draws].mean(axis=1))
