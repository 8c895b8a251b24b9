"""How what features are ranked by without a fit agrees with what steering on fresh contexts measured."""

from collections.abc import Mapping

from .figures import Interval
from .record import Record


class ForecastCheck(Record):
    """Spearman of each forecast by linear response, or of each measured label, with its fresh label, over
    the random group of the fresh check.

    Source: docs/protocol.md, Screening without labels, Every feature labelled.
    """

    n_features: int
    """Features of the random group."""
    spearman: Mapping[str, Interval]
    """By label; ``clean_score`` is that of the fresh labels, standardised over these features."""
