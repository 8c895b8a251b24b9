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
    """Largest difference between the two, relative to the largest change."""
    tolerance: float | None = None
    """Difference below which the fast pass is used."""
