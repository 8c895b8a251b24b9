"""Controls: do labels repeat themselves, and do they say more than any direction would?"""

from collections.abc import Mapping

from .figures import Interval
from .record import Record


class LabelReliability(Interval):
    """Spearman over features between labels from two disjoint halves of the contexts."""

    whole: float
    """The same for all contexts, 2 r / (1 + r) (Spearman-Brown)."""


class RandomComparison(Record):
    """One label of features against random directions of the same norm in the same contexts."""

    features: float
    """Mean over the features."""
    random: float
    """Mean over the random directions put in their places."""
    difference: Interval
    """Mean paired difference, feature minus random direction."""
    p_value: float
    """Two-sided Wilcoxon signed-rank p."""


class RandomDirections(Record):
    """Features against random directions of the same norm."""

    n_features: int
    labels: Mapping[str, RandomComparison]
    crowding_and_collateral_count: Mapping[str, Interval]
    """Spearman of decoder crowding with the collateral count, for ``features`` and for the
    ``random`` directions in their places."""


class DensePanel(Record):
    """How much of the collateral lies in panel features that fire at more than 10 % of the final
    tokens.
    """

    n_panel: int
    n_dense: int
    mean_count: float
    """Mean collateral_count_0.05."""
    mean_count_without: float
    """The same without the dense panel features."""
    spearman: float
    """Between the two counts, over features."""


class ResidualSpace(Record):
    """The change of the downstream residual stream, without the dictionary's eyes."""

    mean_resid_delta_norm: float
    spearman_with_collateral_count: float
    mean_resid_explained: float | None = None
    """None where resid_explained was not measured."""


class Controls(Record):
    """All controls of a screening."""

    reliability: Mapping[str, LabelReliability]
    """By label."""
    random_directions: RandomDirections
    dense_panel: DensePanel
    residual_space: ResidualSpace
