"""Forecasts by linear response under the labels' names, and reasons for a clean score in words."""

from collections.abc import Set as AbstractSet

import numpy as np
import pandas as pd

from .reasons import in_words
from .sets import RESPONSE
from .targets import CLEAN_SCORE, Scheme

SPREAD = "spread_for_effect"
"""What the clean score holds against a feature."""


def forecasts_of(statistics: pd.DataFrame) -> pd.DataFrame:
    """The columns ``response_X`` that are numbers, each called X like the label that it forecasts."""
    numbers = statistics.select_dtypes("number")
    names = [str(name) for name in numbers if str(name).startswith(RESPONSE)]
    return numbers[names].rename(columns=lambda name: name.removeprefix(RESPONSE))


def score_reasons(
    labels: pd.DataFrame, eligible: AbstractSet[int], scheme: Scheme, prefix: str = ""
) -> pd.Series:
    """What makes each clean score what it is: the feature's stability and its spread for its effect,
    each against the dictionary's median.

    The two are what the clean score adds up, in the same units: standard deviations over the eligible
    features.

    Args:
        labels: measured or forecast, by their own names, indexed by feature.
        eligible: features that the clean score is standardised over.
        scheme: what the clean score is made of.
        prefix: of the statistics that the words are about; none for measured labels.

    """
    stability, spread = f"{prefix}stability_abs", f"{prefix}{SPREAD}"
    values = pd.DataFrame({stability: labels["stability_abs"], spread: scheme.weigh_spread(labels)})
    typical, deviation = values.median(), values[values.index.isin(eligible)].std(ddof=0)
    sides = pd.Series({stability: 1.0, spread: -1.0})
    contributions = sides * (values - typical) / deviation.where(deviation > 0, np.inf)
    return in_words(contributions, values, typical, CLEAN_SCORE)
