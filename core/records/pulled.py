"""What a LoRA reads and writes, in the basis of an SAE's features."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from .record import Record, SparseRecord, Versioned


class PulledFeature(SparseRecord):
    """A feature by whose decoder direction a LoRA's reading or writing is told."""

    feature: int
    share: float
    """Of the LoRA's size: what it adds to that which the features before it explain."""
    share_alone: float
    """What it explains by itself."""
    encoder: float
    """Norm of the encoder's column through the LoRA, against the mean over all features."""
    description: str | None = None


class SingularDirection(Record):
    """A direction of the residual stream that a LoRA reads or writes."""

    share: float
    """Of its size."""
    feature: int
    """The feature whose decoder direction lies nearest."""
    cosine: float
    """Absolute."""


class PulledSide(Record):
    """What a LoRA does to the stream on one side of the SAE's hook."""

    kind: Literal["writes", "reads"]
    """``writes``: modules in front of the hook that write to the stream; ``reads``: modules behind it
    that read the stream."""
    modules: Sequence[str]
    share: float
    """Of its size, what all features that are named explain together."""
    random_share: float
    """What as many features, chosen the same way, explain of a random change of the same rank: mean over
    draws."""
    features: Sequence[PulledFeature]
    directions: Sequence[SingularDirection]


class PulledRecord(Versioned, SparseRecord):
    """What ``cleansteer audit --lora DIR --json`` prints."""

    FORMAT: ClassVar[str] = "cleansteer-pulled-back/1"
    REMEDY: ClassVar[str] = "audit anew"

    format: Literal["cleansteer-pulled-back/1"] = "cleansteer-pulled-back/1"
    lora: str
    setting: str
    sae: str
    hook: str
    sides: Sequence[PulledSide]
    elsewhere: Sequence[str]
    """Modules of the LoRA on which the SAE's hook has no such view: those that write to the stream behind
    it or read it in front of it."""
    unknown: Sequence[str]
    """Modules of which it is not known whether they read the stream or write to it."""
