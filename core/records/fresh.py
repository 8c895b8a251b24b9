"""What steering on fresh contexts showed."""

from collections.abc import Mapping

from .figures import Interval
from .record import Record


class Comparison(Record):
    """One measure of the predicted-clean features against another group, on fresh contexts."""

    measure: str
    """A label's column."""
    other: str
    """The group that ``predicted_clean`` is compared with."""
    difference: Interval
    """Mean of ``predicted_clean`` minus mean of the other group."""
    p_value: float
    """Two-sided Mann-Whitney p."""
    cleaner: bool | None = None
    """True where the interval lies on the side that means cleaner; None for neutral measures."""


class FreshCheck(Record):
    """The held-out screening: groups chosen by prediction, steered on fresh contexts.

    Source: docs/protocol.md, Held-out screening (arXiv:2606.08365).
    """

    n_contexts: int
    """Fresh contexts in which every feature was steered."""
    group_size: int
    """Features in each group."""
    n_training: int
    """Labelled features that the check's predictor was fitted on; 0 for a ranking without labels."""
    n_heldout: int
    """Features that it was not fitted on: labelled ones, or all eligible ones of a ranking without
    labels."""
    n_matched: int
    """Of these, the ones inside the range of predicted effects."""
    features: Mapping[str, list[int]]
    """Features by group: ``predicted_clean``, ``predicted_messy``, ``random``."""
    means: Mapping[str, Mapping[str, float]]
    """Group, then measure."""
    comparisons: list[Comparison]

    def comparison(self, measure: str, other: str = "predicted_messy") -> Comparison:
        """The comparison of one measure with one group.

        Raises:
            KeyError: it was not made.

        """
        for made in self.comparisons:
            if (made.measure, made.other) == (measure, other):
                return made
        raise KeyError((measure, other))
