"""Which features' mean activations a fine-tuned model changed."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from .record import SparseRecord, Versioned


class TunedFeature(SparseRecord):
    """A feature, over the tokens of the texts."""

    feature: int
    before: float
    """Mean activation in the base model."""
    after: float
    """And in the tuned one."""
    low: float
    """Of the 95 % interval of their difference, by resampling the texts."""
    high: float
    fires_before: float
    """Share of tokens at which it fires."""
    fires_after: float
    residual: float
    """The difference's size in the residual stream: abs(after - before) times the decoder's norm."""
    description: str | None = None


class TunedRecord(Versioned, SparseRecord):
    """What ``cleansteer audit --tuned MODEL --json`` prints."""

    FORMAT: ClassVar[str] = "cleansteer-tuned/1"
    REMEDY: ClassVar[str] = "audit anew"

    format: Literal["cleansteer-tuned/1"] = "cleansteer-tuned/1"
    base: str
    tuned: str
    sae: str
    hook: str
    n_texts: int
    n_tokens: int
    n_changed: int
    """Features whose interval leaves out 0."""
    explained_before: float
    """Share of the variance at the hook that the SAE explains in the base model."""
    explained_after: float
    """And in the tuned one: where it falls much, the features are no longer the model's."""
    features: Sequence[TunedFeature]
    """Those with the largest difference in the residual stream."""
