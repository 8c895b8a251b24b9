"""What an audit of an adapter found."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from .contexts import AuditedContext as AuditedContext
from .form import FormRecord
from .meaning import MeaningRecord
from .record import Record, SparseRecord, Versioned


class AuditedFeature(SparseRecord):
    """A feature that an adapter changes; entries that were not measured are absent."""

    hook: str
    """TransformerLens' name of the hook point."""
    feature: int
    description: str | None = None
    parameters: Mapping[str, float]
    """What the component learnt of it."""
    size: float
    """Largest absolute change of a parameter since training began."""
    latent: float | None = None
    """Mean over tokens of abs(z' - z), in units of activation."""
    residual: float | None = None
    """Mean over tokens of the norm of what its edit adds to the residual stream."""
    fires: float | None = None
    """Share of tokens at which it fires before the edit."""
    edited: float | None = None
    """Share of tokens at which z' differs from z."""
    silent: bool | None = None
    """True where its edit changes nothing on the data."""
    attribution: float | None = None
    """What its edit adds to the task's loss, to first order: negative where it helps."""
    switched_off: float | None = None
    """The same, measured: the loss with all edits, less that with this one switched off."""
    promotes: Sequence[str] | None = None
    """Tokens that its decoder direction raises most."""
    demotes: Sequence[str] | None = None
    """Those that it lowers most."""
    strongest: Sequence[AuditedContext] | None = None
    """Where it is most active in the data, before the edit."""
    strongest_after: Sequence[AuditedContext] | None = None
    """And after it."""
    form: float | None = None
    """Share of its activation, before the edit, that is at tokens of form: layout, punctuation, function
    words; absent where it does not fire."""
    mean_before: float | None = None
    """Mean activation on the reference, in the model without the adapter."""
    mean_after: float | None = None
    """And with it."""
    overlap: float | None = None
    """Share of its strongest contexts on the reference that is the same before and after; absent where
    it fires in too few texts."""
    predicted_clean_score: float | None = None
    """By the run's ranking."""
    measured_clean_score: float | None = None
    recommended_coefficient: float | None = None
    """The largest push whose KL stays within the run's budget."""


class AuditedPlace(Record):
    """A place that an adapter edits."""

    hook: str
    """TransformerLens' name of the hook point."""
    sae: str
    fingerprint: str | None
    """The SAE's."""
    n_features: int
    """How many of its features may be edited."""


class AuditedPair(Record):
    """What a feature's activation does to another's edit, of components that join features."""

    hook: str
    source: int
    """The feature that is read."""
    target: int
    """The feature that is written to."""
    weight: float
    """Mean over tokens of d(z'_target - z_target) / dz_source."""
    effect: float
    """The weight times the mean activation of the source."""


class Agreement(Record):
    """How well attribution agrees with switching features off."""

    n: int
    """Features that were switched off one by one."""
    spearman: float
    low: float
    """Of its 95 % interval, by resampling the features."""
    high: float


class AuditRecord(Versioned, SparseRecord):
    """What ``cleansteer audit --json`` prints."""

    FORMAT: ClassVar[str] = "cleansteer-audit/1"
    REMEDY: ClassVar[str] = "audit anew"

    format: Literal["cleansteer-audit/1"] = "cleansteer-audit/1"
    adapter: str
    model: str | None = None
    """The base model, as the adapter or the setting names it."""
    places: Sequence[AuditedPlace] | None = None
    component: str
    n_features: int
    """How many it may edit."""
    n_changed: int
    """Those of which a parameter has changed."""
    n_silent: int | None = None
    """Of these, the ones whose edit changes nothing on the data."""
    order: str
    """What the features are ordered by."""
    n_tokens: int | None = None
    """How many tokens the loss is the mean of."""
    loss_without: float | None = None
    loss_with: float | None = None
    kl: float | None = None
    """KL(without || with the adapter) of the next token on the reference texts, in nats."""
    form: FormRecord | None = None
    """How much of the edit is on features of form, on the data, or else on the reference texts."""
    meaning: Sequence[MeaningRecord] | None = None
    """Whether features mean what they meant, on the reference texts, by SAE."""
    agreement: Agreement | None = None
    features: Sequence[AuditedFeature]
    """The first ones in that order."""
    pairs: Sequence[AuditedPair] | None = None
    """Of components that join features, the strongest."""
