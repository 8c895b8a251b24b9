"""How the evaluator was checked against full forward passes."""

from typing import Literal

from .record import SparseRecord


class SelfCheck(SparseRecord):
    """Which forward pass steered, and how far it was from full forward passes."""

    method: Literal["resumed", "full"]
    """``resumed``: the fast pass; ``full``: full forward passes of the model."""
    reason: str | None = None
    """Why full forward passes were used."""
    pairs_compared: int | None = None
    """(feature, context) pairs that were steered both ways."""
    largest_difference: float | None = None
    """Largest difference between the two, relative to the largest change; where the fast pass does
    not know the model, between logits made of the final norm's output and the model's own."""
    tolerance: float | None = None
    """Difference below which the fast pass is used, or the full one believed."""

    def __str__(self) -> str:
        """In words, for a summary."""
        told = f"{self.largest_difference or 0:.1e} of the largest change"
        if self.method == "resumed":
            return f"fast and full forward passes differ by {told} (tolerance {self.tolerance:g})"
        text = f"full forward passes were used, because {self.reason}"
        if self.pairs_compared is None:
            return text
        return (
            f"{text}; logits made of the final norm's output and the model's own differ by {told} "
            f"(tolerance {self.tolerance:g})"
        )
