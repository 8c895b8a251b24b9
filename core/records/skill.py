"""How well one label is predicted."""

from .figures import Interval
from .record import Record

OURS = "ours"
"""The name of our predictor among the methods of :attr:`Skill.scores`."""


class Skill(Record):
    """Out-of-fold Spearman correlation with one label, by method.

    ``scores`` holds ``ours``, ``ridge`` (the paper's), ``boosting`` (LightGBM alone) on all
    statistics, and the ridge on each baseline set.
    """

    target: str
    """The label."""
    scores: dict[str, Interval]
    """Spearman by method."""
    over_best_baseline: Interval
    """Ours minus the better baseline, on the same resampled features."""
    over_ridge: Interval
    """Ours minus the paper's ridge, on the same resampled features."""
    best_baseline: str
    """Name of the better baseline."""
    n_features: int
    """Number of labelled features."""
    constant: bool
    """True where every labelled feature has the same label: there is nothing to predict."""

    @property
    def ours(self) -> Interval:
        """The score of our predictor."""
        return self.scores[OURS]
