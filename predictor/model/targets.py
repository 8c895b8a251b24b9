"""What the predictor predicts: labels of a feature, and the clean score made of them."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.choices import CollateralKind
from ...core.errors import InputError

EPS = 1e-8
CLEAN_SCORE = "clean_score"
HIGHER_IS_CLEANER = {
    "stability_abs": True,
    "collateral_per_effect": False,
    "collateral_relative_per_effect": False,
    "collateral_relative_mass": False,
}


@dataclass(frozen=True)
class Scheme:
    """Which labels make up the clean score and stand for the axes."""

    spread: str
    """How much of the panel a push moves."""
    collateral: str
    """The label of the collateral axis."""
    divided: bool
    """Whether the clean score divides by the size of the effect."""

    def weigh_spread(self, labels: pd.DataFrame) -> pd.Series:
        """What the clean score holds against a feature: log1p(spread), over effect_l2 + 1e-8 where it
        divides.
        """
        spread = np.log1p(labels[self.spread].to_numpy(dtype=np.float64))
        if self.divided:
            spread = spread / (labels["effect_l2"].to_numpy(dtype=np.float64) + EPS)
        return pd.Series(spread, index=labels.index)

    @property
    def axes(self) -> dict[str, str]:
        """The label of each axis."""
        return {"stability": "stability_abs", "collateral": self.collateral}

    @property
    def judged(self) -> tuple[str, ...]:
        """The clean score and the label of each axis."""
        return (CLEAN_SCORE, *self.axes.values())

    @property
    def targets(self) -> tuple[str, ...]:
        """What every run fits and validates."""
        return tuple(dict.fromkeys((*self.judged, self.spread, "effect_l2")))


ABSOLUTE = Scheme("collateral_count_0.05", "collateral_per_effect", divided=True)
"""The paper's."""
RELATIVE = Scheme("collateral_relative_mass", "collateral_relative_per_effect", divided=True)
"""In units of each panel feature's own scale."""
MATCHED = Scheme("collateral_relative_mass", "collateral_relative_mass", divided=False)
"""The same where all features do equally much: to divide would add the noise of how much that is."""


def scheme_for(collateral: CollateralKind, mode: str) -> Scheme:
    """The scheme of a kind of collateral, in a mode of steering."""
    if collateral == "absolute":
        return ABSOLUTE
    return MATCHED if mode == "matched" else RELATIVE


def scheme_of(targets: Iterable[str]) -> Scheme:
    """The scheme whose targets are among these; the paper's where none's are."""
    known = set(targets)
    return next((s for s in (RELATIVE, MATCHED) if s.collateral in known), ABSOLUTE)


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


def clean_score(
    labels: pd.DataFrame,
    among: NDArray[np.int64] | slice = slice(None),
    scheme: Scheme = ABSOLUTE,
) -> pd.Series:
    """zscore(stability_abs) - zscore(log1p(collateral_count_0.05) / (effect_l2 + 1e-8)); by another
    scheme with that one's spread, not divided where all features do equally much.

    Standardised over the rows given, or some of them, with the population standard deviation; higher
    is cleaner.

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    stability = labels["stability_abs"].to_numpy(dtype=np.float64)
    spread = scheme.weigh_spread(labels).to_numpy(dtype=np.float64)
    score = zscore(stability, among) - zscore(spread, among)
    return pd.Series(score, index=labels.index, name=CLEAN_SCORE)


def primary_labels(
    labels: pd.DataFrame,
    context_type: str = "mixed",
    scheme: Scheme = ABSOLUTE,
    among: AbstractSet[int] | None = None,
) -> pd.DataFrame:
    """One row for every labelled feature, indexed by it, with ``clean_score``, standardised over all
    of them or those ``among`` which it is wanted.

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
    missing = [n for n in ("stability_abs", scheme.spread, "effect_l2") if n not in rows]
    if missing:
        raise InputError(
            f"the label table lacks {', '.join(missing)}, of which the clean score is made; label "
            "features anew (cleansteer evaluate), or say which collateral is meant (collateral)"
        )
    standard = slice(None) if among is None else np.flatnonzero(rows.index.isin(among))
    return rows.assign(**{CLEAN_SCORE: clean_score(rows, standard, scheme)})
