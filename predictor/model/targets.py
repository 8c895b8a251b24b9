"""What the predictor predicts: labels of a feature, and the clean score made of them."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.errors import InputError

EPS = 1e-8
CLEAN_SCORE = "clean_score"
AXES = {"stability": "stability_abs", "collateral": "collateral_per_effect"}
"""The label of each axis."""
HIGHER_IS_CLEANER = {"stability_abs": True, "collateral_per_effect": False}
TARGETS = (
    CLEAN_SCORE,
    "stability_abs",
    "collateral_per_effect",
    "collateral_count_0.05",
    "effect_l2",
)
"""Targets that every run fits and validates."""
_BOUNDS = {
    "stability_abs": (0.0, 1.0),
    "stability_signed": (-1.0, 1.0),
    "pairwise_cos_abs": (0.0, 1.0),
    "pairwise_cos_signed": (-1.0, 1.0),
    "anti_aligned_frac": (0.0, 1.0),
    "effect_pc1_ratio": (0.0, 1.0),
    "resid_explained": (-np.inf, 1.0),
}


def bounds(target: str) -> tuple[float, float]:
    """Least and greatest value that a label can have by its definition."""
    low, high = _BOUNDS.get(target, (-np.inf, np.inf))
    if target.startswith(("collateral_", "effect_", "kl_", "logit_")):
        low = 0.0
    return low, high


def keeps_tails(target: str | None) -> bool:
    """True for a target that is fitted in its own units instead of normal scores: the clean score.

    A ranking is used at its ends: the mean over the hundred features that somebody takes depends on
    a few extreme ones. On held-out features of the miniatures, groups of predicted clean and messy
    lie farther apart this way, with the same rank correlation.
    """
    return target == CLEAN_SCORE


def zscore(
    values: NDArray[np.float64], among: NDArray[np.int64] | slice = slice(None)
) -> NDArray[np.float64]:
    """Standardised by mean and population standard deviation of some of them; zeros where these are
    all equal.
    """
    some = values[among]
    if np.ptp(some) == 0:
        return np.zeros_like(values)
    return np.asarray((values - some.mean()) / some.std())


def clean_score(labels: pd.DataFrame, among: NDArray[np.int64] | slice = slice(None)) -> pd.Series:
    """zscore(stability_abs) - zscore(log1p(collateral_count_0.05) / (effect_l2 + 1e-8)).

    Standardised over the rows given, or some of them, with the population standard deviation; higher
    is cleaner.

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    stability = labels["stability_abs"].to_numpy(dtype=np.float64)
    count = labels["collateral_count_0.05"].to_numpy(dtype=np.float64)
    effect = labels["effect_l2"].to_numpy(dtype=np.float64)
    score = zscore(stability, among) - zscore(np.log1p(count) / (effect + EPS), among)
    return pd.Series(score, index=labels.index, name=CLEAN_SCORE)


def primary_labels(labels: pd.DataFrame, context_type: str = "mixed") -> pd.DataFrame:
    """One row for every labelled feature, indexed by it, with ``clean_score``.

    Raises:
        InputError: the table is empty, no row has this context type, or a feature is there twice.

    """
    if labels.empty:
        raise InputError(
            "the label table is empty, expected a row a feature and context type; label features "
            "(cleansteer evaluate)"
        )
    rows = labels[labels["context_type"] == context_type].set_index("feature").sort_index()
    if rows.empty:
        raise InputError(
            f"the label table has no rows of context type {context_type!r}, only "
            f"{', '.join(map(str, labels['context_type'].unique()))}; evaluate with --contexts all"
        )
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()][0]
        raise InputError(
            f"feature {twice} is labelled more than once for context type {context_type!r}; keep "
            "one mode and strength in the table"
        )
    return rows.assign(**{CLEAN_SCORE: clean_score(rows)})
