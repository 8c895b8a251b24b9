"""Controls: do labels repeat themselves, and do they say more than any direction would?"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from ...core.records import (
    DensePanel,
    Interval,
    LabelReliability,
    RandomComparison,
    RandomDirections,
    ResidualSpace,
)
from ..model.targets import ABSOLUTE, CLEAN_SCORE, RELATIVE, Scheme, clean_score
from .resampling import bootstrap, resampled_spearman
from .scores import percentile_interval, spearman

Array = NDArray[np.float64]

RESAMPLES = 1000
LABELS = (
    "stability_abs",
    "collateral_count_0.05",
    "collateral_per_effect",
    RELATIVE.spread,
    RELATIVE.collateral,
    "effect_l2",
    "kl_clean_steered",
    "resid_delta_norm",
)
"""Labels that the controls report, as far as they were measured."""
CROWDING = "crowding_max_abs_cos"


def reliability(
    first: pd.DataFrame, second: pd.DataFrame, seed: int, scheme: Scheme = ABSOLUTE
) -> dict[str, LabelReliability]:
    """Spearman over features between labels from two disjoint halves of the contexts, by label.

    ``value`` and its 95 % bootstrap interval over features hold for half as many contexts as the
    labels have; ``whole`` is the figure for all of them, 2 r / (1 + r) (Spearman-Brown), r the value
    or 0 where it is negative.

    Args:
        first: labels on one half, indexed by feature.
        second: the same features' labels on the other half, in the same order.
        seed: seeds the resampling.
        scheme: what the clean score is made of.

    Raises:
        ValueError: the halves are of different features.

    Source: the replication's control (Bishnoi 2026; docs/protocol.md, Published figures).

    """
    halves = scored_halves(first, second, scheme)
    counts = bootstrap(len(first), RESAMPLES, seed)
    by_label = {}
    for name in (CLEAN_SCORE, *_measured(first)):
        a, b = (half[name].to_numpy(dtype=np.float64) for half in halves)
        half = _spearman_interval(a, b, counts)
        by_label[name] = LabelReliability(
            value=half.value, low=half.low, high=half.high, whole=stepped_up(max(half.value, 0.0))
        )
    return by_label


def stepped_up(half: float) -> float:
    """Reliability of all contexts, given that of half as many: 2 r / (1 + r) (Spearman-Brown)."""
    return 2 * half / (1 + half)


def split_half(first: pd.DataFrame, second: pd.DataFrame, scheme: Scheme) -> dict[str, float]:
    """The ``value`` of :func:`reliability` alone, for the labels that a scheme judges by."""
    halves = scored_halves(first, second, scheme)
    return {
        name: spearman(*(half[name].to_numpy(dtype=np.float64) for half in halves))
        for name in scheme.judged
    }


def scored_halves(
    first: pd.DataFrame, second: pd.DataFrame, scheme: Scheme
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels on two halves of the contexts with the clean score of each, standardised within it.

    Raises:
        ValueError: the halves are of different features.

    """
    if not first.index.equals(second.index):
        raise ValueError("the halves are not of the same features in the same order")
    a, b = (
        table.assign(**{CLEAN_SCORE: clean_score(table, scheme=scheme)})
        for table in (first, second)
    )
    return a, b


def against_random_directions(
    labels: pd.DataFrame, random: pd.DataFrame, statistics: pd.DataFrame, seed: int
) -> RandomDirections:
    """Compare features with random directions of the same norm, in the same contexts, on the same
    panel.

    Per label: both means, the mean paired difference (feature minus random) with its 95 % bootstrap
    interval over features, two-sided Wilcoxon p. And the Spearman correlation of decoder crowding
    with collateral count, for features and for the random directions in their places: where the
    second is not smaller, crowding says nothing about the feature's direction.

    Args:
        labels: labels of the features, indexed by feature.
        random: labels of the random directions, indexed by the feature whose place they take.
        statistics: feature table, indexed by feature.
        seed: seeds the resampling.

    Source: the replication's control (Bishnoi 2026; docs/protocol.md, Published figures).

    """
    paired = labels.loc[random.index]
    counts = bootstrap(len(paired), RESAMPLES, seed)
    compared = {}
    for name in _measured(paired):
        a, b = (table[name].to_numpy(dtype=np.float64) for table in (paired, random))
        difference = a - b
        compared[name] = RandomComparison(
            features=float(a.mean()),
            random=float(b.mean()),
            difference=percentile_interval(difference.mean(), counts @ difference / len(paired)),
            p_value=float(wilcoxon(difference).pvalue) if difference.any() else 1.0,
        )
    crowding = statistics.loc[random.index, CROWDING].to_numpy(dtype=np.float64)
    correlations = {
        who: _spearman_interval(
            crowding, table["collateral_count_0.05"].to_numpy(dtype=np.float64), counts
        )
        for who, table in (("features", paired), ("random", random))
    }
    return RandomDirections(
        n_features=len(paired),
        labels=compared,
        crowding_and_collateral_count=correlations,
    )


def without_dense_panel(labels: pd.DataFrame, n_panel: int, n_dense: int) -> DensePanel:
    """How much of the collateral lies in panel features that fire at more than 10 % of the final
    tokens, and whether features keep their order without those.

    Args:
        labels: labels, ``[feature, label]``.
        n_panel: features in the panel.
        n_dense: of these, the ones that fire at more than 10 % of the final tokens.

    Source: the replication's control (Bishnoi 2026).
    """
    whole = labels["collateral_count_0.05"].to_numpy(dtype=np.float64)
    sparse = labels["collateral_count_0.05_sparse"].to_numpy(dtype=np.float64)
    return DensePanel(
        n_panel=n_panel,
        n_dense=n_dense,
        mean_count=float(whole.mean()),
        mean_count_without=float(sparse.mean()),
        spearman=spearman(whole, sparse),
    )


def residual_space(labels: pd.DataFrame) -> ResidualSpace:
    """The change of the downstream residual stream itself: its norm, how much of it the downstream
    SAE's reconstruction follows, and whether collateral counts only repeat its norm.
    """
    norm = labels["resid_delta_norm"].to_numpy(dtype=np.float64)
    count = labels["collateral_count_0.05"].to_numpy(dtype=np.float64)
    explained = labels.get("resid_explained")
    return ResidualSpace(
        mean_resid_delta_norm=float(norm.mean()),
        spearman_with_collateral_count=spearman(norm, count),
        mean_resid_explained=None if explained is None else float(explained.mean()),
    )


def _measured(table: pd.DataFrame) -> list[str]:
    """The labels that are there; KL says nothing where every feature is brought to the same."""
    matched = "mode" in table and bool((table["mode"] == "matched").all())
    left_out = {"kl_clean_steered"} if matched else set()
    return [name for name in LABELS if name in table and name not in left_out]


def _spearman_interval(a: Array, b: Array, counts: Array) -> Interval:
    return percentile_interval(spearman(a, b), resampled_spearman(a, b, counts))
