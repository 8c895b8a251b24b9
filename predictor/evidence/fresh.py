"""The check on fresh contexts: do features that are predicted to be clean steer cleanly?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from ...core.errors import InputError
from ...core.records import Comparison, FreshCheck, Interval
from ..model.blend import Blend
from ..model.checks import LEAST_SPLIT
from ..model.sets import statistics_of
from ..model.targets import (
    ABSOLUTE,
    CLEAN_SCORE,
    HIGHER_IS_CLEANER,
    RELATIVE,
    Scheme,
    clean_score,
    keeps_tails,
)
from .scores import percentile_interval

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
    RELATIVE.collateral,
    RELATIVE.spread,
    "effect_l2",
    "kl_clean_steered",
    "resid_delta_norm",
)
"""Each scheme's two, the labels that they are made of, and controls."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Groups:
    """The features to steer on fresh contexts, and the numbers of features they were chosen from."""

    features: Mapping[str, NDArray[np.int64]]
    """Rising indices by group (:data:`GROUPS`)."""
    n_training: int
    """Labelled features that the check's predictor was fitted on."""
    n_heldout: int
    """Features that it was not fitted on: labelled ones, or all eligible ones of a ranking without
    labels."""
    n_matched: int
    """Of these, the ones inside the range of predicted effects."""

    def among(self, features: pd.Index) -> "Groups":
        """The groups without features that are not among these."""
        kept = {name: own[np.isin(own, features)] for name, own in self.features.items()}
        return replace(self, features=kept)


def check_enough(n_labelled: int) -> None:
    """Refuse fewer labelled features than the fresh check takes.

    Raises:
        InputError: fewer than 15.

    """
    if n_labelled < LEAST_SPLIT:
        raise InputError(
            f"{n_labelled} labelled features are too few for the fresh check, expected at least "
            f"{LEAST_SPLIT}; raise `n_features` (--labels) or give more contexts"
        )


def choose_groups(
    statistics: pd.DataFrame, labels: pd.DataFrame, seed: int, scheme: Scheme = ABSOLUTE
) -> Groups:
    """Choose predicted-clean, predicted-messy and random features that the model was not fitted on.

    Labelled features are split 60/40 (seeded); the predictor is fitted on the 60. Of the 40, those
    whose *predicted* effect_l2 lies between its 10 % and 90 % quantiles stay; the 50 highest and 50
    lowest predicted clean scores and 50 random others are taken, a third of what remains each where
    there are fewer than 150.

    Args:
        statistics: ``[feature, statistic]`` of the labelled features, indexed by feature.
        labels: their labels, in the same order.
        seed: seeds the split, the model and the random group.
        scheme: what the clean score is made of.

    Raises:
        InputError: fewer than 15 labelled features.
        ValueError: labels and statistics are of different features.

    Source: docs/protocol.md, Held-out screening (arXiv:2606.08365).

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
    known = {
        CLEAN_SCORE: clean_score(fitted_on, scheme=scheme),
        "effect_l2": fitted_on["effect_l2"],
    }
    predicted = pd.DataFrame(
        {
            target: Blend(seed, keeps_tails(target))
            .fit(X[training], y.to_numpy(dtype=np.float64))
            .predict(X[heldout])
            for target, y in known.items()
        },
        index=statistics.index[heldout],
    )
    return take_groups(predicted, n_training, generator)


def take_groups(predicted: pd.DataFrame, n_training: int, generator: np.random.Generator) -> Groups:
    """The groups among features, by what is predicted of them.

    Args:
        predicted: columns ``effect_l2`` and ``clean_score``, indexed by feature, rising.
        n_training: features that the prediction was fitted on.
        generator: draws the random group.

    """
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
        n_heldout=len(predicted),
        n_matched=len(matched),
    )


def is_cleaner(measure: str, difference: Interval) -> bool | None:
    """True where the interval of a difference lies on the side that means cleaner; None for neutral
    measures.
    """
    if measure not in HIGHER_IS_CLEANER:
        return None
    return difference.above_zero if HIGHER_IS_CLEANER[measure] else difference.below_zero


def compare_groups(groups: Groups, fresh: pd.DataFrame, seed: int) -> FreshCheck:
    """Compare the groups on fresh contexts: means, and differences with 95 % percentile-bootstrap
    intervals (10,000 resamples over features) and two-sided Mann-Whitney p.

    Args:
        groups: as :func:`choose_groups` chose them.
        fresh: labels on fresh contexts, indexed by feature.
        seed: seeds the resampling.

    Raises:
        InputError: a group's feature has no fresh label.

    Source: docs/protocol.md, Held-out screening (arXiv:2606.08365).

    """
    missing = np.setdiff1d(np.concatenate(list(groups.features.values())), fresh.index)
    if len(missing):
        raise InputError(
            f"feature {missing[0]} of the fresh check has no label on fresh contexts ({len(missing)} "
            "such features); steer every group's features"
        )
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
            difference = percentile_interval(a.mean() - b.mean(), resampled)
            comparisons.append(
                Comparison(
                    measure=measure,
                    other=other,
                    difference=difference,
                    p_value=float(mannwhitneyu(a, b, alternative="two-sided").pvalue),
                    cleaner=is_cleaner(measure, difference),
                )
            )
    return FreshCheck(
        n_contexts=int(fresh["n_contexts"].iloc[0]),
        group_size=len(groups.features["predicted_clean"]),
        n_training=groups.n_training,
        n_heldout=groups.n_heldout,
        n_matched=groups.n_matched,
        features={name: features.tolist() for name, features in groups.features.items()},
        means={g: {m: float(v.mean()) for m, v in by.items()} for g, by in values.items()},
        comparisons=comparisons,
    )


def _resampled_mean(values: Array, generator: np.random.Generator) -> Array:
    draws = generator.integers(len(values), size=(RESAMPLES, len(values)))
    return np.asarray(values[draws].mean(axis=1))
