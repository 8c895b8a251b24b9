"""The table of features, in columns that are small to write and quick to read."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..predictor.model.targets import ABSOLUTE, RELATIVE, Scheme
from ..predictor.verdict.choice import axis_percentiles

DIGITS = 6
"""Significant digits of a column's largest value that are kept."""
STATISTICS = (
    "crowding_max_abs_cos",
    "encoder_decoder_cos",
    "direct_logit_l2",
    "response_clean_score",
    "response_stability_abs",
    "response_collateral_per_effect",
    "response_collateral_relative_per_effect",
)
"""Statistics that can be looked at beside the ranking's columns."""
_RESPONSE_WORDS = {"raised": "response_top_tokens", "lowered": "response_bottom_tokens"}
_TARGETS = tuple(dict.fromkeys((*ABSOLUTE.targets, *RELATIVE.targets)))
BOTH_AXES, ALONE = "both_axes", "alone"
CLEANER, MESSIER = 0.75, 0.5
"""A feature is clean by one axis alone that is in the cleaner quarter of the eligible features there,
and in the messier half on the other axis."""
_NUMBERS = (
    *(f"predicted_{target}" for target in _TARGETS),
    "predicted_clean_score_low",
    "predicted_clean_score_high",
    *(f"measured_{target}" for target in _TARGETS),
    "final_act_freq",
)


@dataclass(frozen=True)
class NumberColumn:
    """Numbers as integers, to be divided by 10 to the power of ``decimals``; None: not finite."""

    decimals: int
    values: Sequence[int | None]


@dataclass(frozen=True)
class WordColumn:
    """Lists of words: each row is ``width`` places in ``words``, -1 for none."""

    width: int
    words: Sequence[str]
    codes: Sequence[int]
    """Row after row."""


@dataclass(frozen=True)
class FeatureColumns:
    """Every feature's row, as columns in the order to show."""

    n: int
    feature: Sequence[int]
    rank: Sequence[int] | None
    """None where there is no ranking."""
    targets: Sequence[str]
    """The labels that are ranked by, as far as there are columns of them, the collateral axis' too."""
    collateral: str
    """The label of the collateral axis."""
    numbers: Mapping[str, NumberColumn]
    """Statistics, predicted and measured labels; ``both_axes`` is the worse of a feature's percentiles
    on the two axes, among the eligible ones."""
    flags: Mapping[str, Sequence[int]]
    """``eligible``, and ``allowed`` for the features of the run's allowlist; 0 or 1."""
    words: Mapping[str, WordColumn]
    """``tokens`` that the decoder direction promotes; those at which the feature ``peaks``; those that
    are ``raised`` and ``lowered`` by the linear response; ``reasons`` of a prediction; the axis that a
    feature is clean by ``alone``."""
    descriptions: Sequence[str] | None
    """None where none were given."""


def feature_columns(
    table: pd.DataFrame,
    statistics: pd.DataFrame,
    scheme: Scheme,
    allowed: Iterable[int] = (),
    descriptions: Mapping[int, str] | None = None,
) -> FeatureColumns:
    """Every feature's row, as columns.

    Args:
        table: the ranking, or the feature table of a run without one, in the order to show.
        statistics: the feature table.
        scheme: which labels make up the clean score and stand for the axes.
        allowed: features of the run's allowlist.
        descriptions: by feature.

    """
    features = table["feature"].to_numpy(dtype=np.int64)
    more = statistics.set_index("feature").reindex(features)
    numbers = {name: table[name] for name in _NUMBERS if name in table}
    numbers |= {name: more[name] for name in STATISTICS if name in more}
    words = {}
    if "direct_top_tokens" in table:
        words["tokens"] = code_words(table["direct_top_tokens"])
    if "peak_top_tokens" in more:
        words["peaks"] = code_words(more["peak_top_tokens"])
    words |= {
        kind: code_words(more[name]) for kind, name in _RESPONSE_WORDS.items() if name in more
    }
    axes = _axes(table, scheme)
    if axes is not None:
        numbers[BOTH_AXES] = axes.min(axis=1)
        words[ALONE] = code_words(_alone(row) for row in axes.to_dict("records"))
    if "reasons" in table:
        words["reasons"] = code_words(
            [part for part in text.split("; ") if part] for text in table["reasons"]
        )
    return FeatureColumns(
        n=len(table),
        feature=features.tolist(),
        rank=table["rank"].tolist() if "rank" in table else None,
        targets=scheme.targets,
        collateral=scheme.collateral,
        numbers={
            name: scale_numbers(values.to_numpy(dtype=np.float64))
            for name, values in numbers.items()
        },
        flags={
            "eligible": table["eligible"].to_numpy(dtype=np.int8).tolist(),
            "allowed": np.isin(features, list(allowed)).astype(np.int8).tolist(),
        },
        words=words,
        descriptions=[descriptions.get(int(feature), "") for feature in features]
        if descriptions
        else None,
    )


def _axes(table: pd.DataFrame, scheme: Scheme) -> pd.DataFrame | None:
    """Percentiles of the eligible features on both axes, NaN of the others; None where they are not
    predicted.
    """
    wanted = [f"predicted_{label}" for label in scheme.axes.values()]
    eligible = table[table["eligible"]]
    if any(name not in table or eligible[name].isna().any() for name in wanted):
        return None
    return axis_percentiles(eligible).reindex(table.index)


def _alone(percentiles: Mapping[Hashable, float]) -> list[str]:
    """The axis that a feature is clean by alone, if it is."""
    return [
        axis
        for axis, other in (("stability", "collateral"), ("collateral", "stability"))
        if percentiles[axis] >= CLEANER and percentiles[other] < MESSIER
    ]


def scale_numbers(values: NDArray[np.float64]) -> NumberColumn:
    """Numbers as integers, of which the largest has six digits."""
    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    decimals = DIGITS - 1 - math.floor(math.log10(largest)) if largest > 0 else 0
    decimals = min(max(decimals, 0), 300)
    whole = np.round(np.where(finite, values, 0.0) * 10.0**decimals).astype(np.int64)
    listed: list[int | None] = whole.tolist()
    for row in np.flatnonzero(~finite):
        listed[row] = None
    return NumberColumn(decimals, listed)


def code_words(lists: Iterable[Iterable[str]]) -> WordColumn:
    """Lists of words as places in the list of the different ones."""
    rows = [list(row) for row in lists]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(lengths.max(initial=0))
    codes, words = pd.factorize(np.array([w for row in rows for w in row], dtype=object))
    filled = np.full((len(rows), width), -1, dtype=np.int64)
    filled[np.arange(width) < lengths[:, None]] = codes
    return WordColumn(width, [str(word) for word in words], filled.ravel().tolist())
