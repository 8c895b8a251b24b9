"""How many contexts a label took to repeat itself."""

from collections.abc import Mapping

from .record import Record


class PilotStep(Record):
    """One measurement of the pilot."""

    contexts_per_type: int
    reliability: Mapping[str, float]
    """Spearman over the pilot's features between the halves of their contexts, by label."""

    @property
    def worst(self) -> float:
        """The least reliability of any label."""
        return min(self.reliability.values())


class PilotReport(Record):
    """The pilot's steps, and what they led to."""

    asked: float
    """Reliability that was asked for."""
    most_contexts_per_type: int
    """Budget."""
    contexts_per_type: int
    """Contexts of each type that the labels took."""
    reached: bool
    """True where every label repeated itself as well as was asked for."""
    steps: list[PilotStep]
