"""How features moved over the checkpoints of a training."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from .audit import AuditRecord
from .record import SparseRecord, Versioned


class MovedAdapter(SparseRecord):
    """One of the adapters that are compared."""

    path: str
    step: int | None = None
    """Of a checkpoint, by its name."""
    n_changed: int
    """Features of which a parameter has changed since training began."""


class MovedFeature(SparseRecord):
    """A feature that one of them changed; lists have an entry for each adapter, in their order."""

    hook: str
    feature: int
    description: str | None = None
    parameters: Mapping[str, Sequence[float]]
    """What the component had learnt of it."""
    size: Sequence[float]
    """Largest absolute change of a parameter since training began."""


class MovementRecord(Versioned, SparseRecord):
    """What ``cleansteer audit ADAPTER ADAPTER... --json`` prints."""

    FORMAT: ClassVar[str] = "cleansteer-movement/1"
    REMEDY: ClassVar[str] = "audit anew"

    format: Literal["cleansteer-movement/1"] = "cleansteer-movement/1"
    component: str
    n_features: int
    """How many they may edit."""
    adapters: Sequence[MovedAdapter]
    features: Sequence[MovedFeature]
    """The first ones by their size in the last adapter."""
    last: AuditRecord | None = None
    """What the last adapter does, where data or reference texts were given."""
