"""How forecasts by linear response agree with what steering on fresh contexts measured."""

from collections.abc import Mapping

from .figures import Interval
from .record import Record


class ForecastCheck(Record):
    """Spearman of each forecast with its fresh label, over the random group of the fresh check.

    Source: docs/protocol.md, Screening without labels.
    """

    n_features: int
    """Features of the random group."""
    spearman: Mapping[str, Interval]
    """By label; ``clean_score`` is that of the fresh labels, standardised over these features."""
