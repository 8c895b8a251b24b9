"""The table of features, in columns that are small to write and quick to read."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..predictor.targets import TARGETS

DIGITS = 6
"""Significant digits of a column's largest value that are kept."""
STATISTICS = ("crowding_max_abs_cos", "encoder_decoder_cos", "direct_logit_l2")
"""Statistics that can be looked at beside the ranking's columns."""
_NUMBERS = (
    *(f"predicted_{target}" for target in TARGETS),
    "predicted_clean_score_low",
    "predicted_clean_score_high",
    *(f"measured_{target}" for target in TARGETS),
    "final_act_freq",
)


def feature_columns(
    table: pd.DataFrame,
    statistics: pd.DataFrame,
    allowed: Iterable[int] = (),
    descriptions: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Every feature's row, as columns.

    Numbers are integers with a common ``scale`` that they are to be multiplied with, null where not
    finite; words (top tokens, reasons) are numbers in a list of the different ones.

    Args:
        table: the ranking, or the feature table of a run without one, in the order to show.
        statistics: the feature table.
        allowed: features of the run's allowlist.
        descriptions: by feature.

    """
    features = table["feature"].to_numpy(dtype=np.int64)
    more = statistics.set_index("feature").reindex(features)
    numbers = {name: table[name] for name in _NUMBERS if name in table}
    numbers |= {name: more[name] for name in STATISTICS if name in more}
    found: dict[str, Any] = {
        "n": len(table),
        "feature": features.tolist(),
        "numbers": {
            name: scaled(values.to_numpy(dtype=np.float64)) for name, values in numbers.items()
        },
        "flags": {
            "eligible": table["eligible"].to_numpy(dtype=np.int8).tolist(),
            "allowed": np.isin(features, list(allowed)).astype(np.int8).tolist(),
        },
        "words": {},
    }
    if "rank" in table:
        found["rank"] = table["rank"].tolist()
    if "direct_top_tokens" in table:
        found["words"]["tokens"] = coded(table["direct_top_tokens"])
    if "reasons" in table:
        found["words"]["reasons"] = coded(
            [part for part in text.split("; ") if part] for text in table["reasons"]
        )
    if descriptions:
        found["descriptions"] = [descriptions.get(int(feature), "") for feature in features]
    return found


def scaled(values: NDArray[np.float64]) -> dict[str, Any]:
    """Integers and what to multiply them with, so that the largest has six digits."""
    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    decimals = DIGITS - 1 - math.floor(math.log10(largest)) if largest > 0 else 0
    decimals = min(max(decimals, 0), 300)
    whole = np.round(np.where(finite, values, 0.0) * 10.0**decimals).astype(np.int64)
    listed: list[int | None] = whole.tolist()
    for row in np.flatnonzero(~finite):
        listed[row] = None
    return {"decimals": decimals, "values": listed}


def coded(lists: Iterable[Iterable[str]]) -> dict[str, Any]:
    """Lists of words as numbers in the list of the different ones, ``width`` a row, -1 for none."""
    rows = [list(row) for row in lists]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(lengths.max(initial=0))
    codes, words = pd.factorize(np.array([w for row in rows for w in row], dtype=object))
    filled = np.full((len(rows), width), -1, dtype=np.int64)
    filled[np.arange(width) < lengths[:, None]] = codes
    return {
        "width": width,
        "words": [str(word) for word in words],
        "codes": filled.ravel().tolist(),
    }
