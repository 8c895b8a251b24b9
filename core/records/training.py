"""What a training was, and what it gave."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import JsonValue, model_serializer

from ..choices import RankedBy, Relevance
from ..training import TrainingOptions
from .record import Record, Serialize, Versioned
from .verdict import Verdict


class _AsGiven(Record):
    """A record whose file has the entries that were given, and no others."""

    @model_serializer(mode="wrap")
    def _as_given(self, serialize: Serialize) -> dict[str, JsonValue]:
        return _given(self, serialize(self))


class SettingName(Record):
    """The setting that a training was of."""

    name: str
    fingerprint: str


class TrainedModel(_AsGiven):
    """The model that was adapted."""

    name: str
    """As the setting names it."""
    dtype: str
    source: str | None = None
    """Hub id or resolved directory; once the training is finished."""
    attention: str | None = None
    """Implementation of attention that the model has to be loaded with to compute what was trained;
    None where any does."""


class TrainedSae(Record):
    """The SAE through whose features the adapter edits."""

    label: str
    fingerprint: str
    n_features: int


class TrainedTarget(_AsGiven):
    """One of the places that an adapter edits, and the SAE that reads there."""

    hook: str
    sae: TrainedSae
    allowed: list[int] | None = None
    """Features that may be edited; None: all."""
    trust: Verdict | None = None
    """Their allowlist's verdict."""
    ranked_by: RankedBy | None = None
    """What the ranking goes by that they were chosen from."""
    features: list[int] | None = None
    """Features that were trained; None: all. Where none was worth it, nothing is edited here."""

    @property
    def n_features(self) -> int:
        """How many features are edited."""
        return self.sae.n_features if self.features is None else len(self.features)


class ExampleCount(_AsGiven):
    """Examples that were trained on or scored."""

    name: str | None = None
    n: int
    fingerprint: str
    chat: bool | None = None
    """True where they are conversations, which the model's chat template made text of."""
    n_prompts: int | None = None
    """How many of them differ in their prompt (their text, where there is none), blanks around it
    aside."""
    n_shared: int | None = None
    """Of examples that are scored: how many have a prompt that is trained on too."""
    n_used: int | None = None
    """Of these, the ones that the longest length allowed left something of; once finished."""
    n_cut: int | None = None
    """How many were longer than ``max_length``; once finished, as what follows."""
    n_tokens: int | None = None
    """Tokens before anything was cut, special ones included; of pairs those of both."""
    n_tokens_lost: int | None = None
    """Of these, what was cut off or stands in examples that are not used."""


class Losses(Record):
    """Held-out loss before training, and of the best adapter."""

    before: float
    after: float

    @property
    def improved(self) -> bool:
        """True where the adapter is better than none."""
        return self.after < self.before


class FreshLosses(Losses):
    """The same on further examples, by which nothing was chosen."""

    n: int
    """How many were used."""
    fingerprint: str


class Change(Record):
    """A number before training, and of the best adapter."""

    before: float
    after: float


class Effects(_AsGiven):
    """How much an adapter changes, beside what it was trained for; None where it was not measured."""

    edit: Change | None = None
    """Sum over allowed latents of abs(z' - z), mean over the held-out tokens that are edited."""
    drift: Change | None = None
    """The same of all other latents, on the reference: how far they move, mean over tokens; of several
    places the sum, each moved by its own edit."""
    kl: Change | None = None
    """KL(without || with the adapter) of the next token on the reference, in nats, mean over tokens."""
    objective: Change | None = None
    """Held-out loss with all penalties, by which the best adapter is chosen."""


class Budget(_AsGiven):
    """How a budget of KL was kept."""

    kl_budget: float
    gamma: float
    """What the size of the trained edit was multiplied by."""
    multiplier: float
    """Lambda at the end: what a nat of KL costs in units of the loss."""
    kl: float
    """KL on the reference texts that the edit was scaled by, in nats, mean over tokens."""
    held_out: float
    """On those that nothing was fitted to."""
    held_out_tokens: int
    first_step: float | None = None
    """KL, on a few reference texts, of what the first optimiser step did."""


class LogEntry(_AsGiven):
    """What was logged at an optimiser step; None where it was not finite or not measured."""

    step: int
    loss: float | None = None
    eval_loss: float | None = None
    eval_edit: float | None = None
    """As in :class:`Effects`, and what follows."""
    eval_drift: float | None = None
    eval_kl: float | None = None
    eval_objective: float | None = None


class TrainingForecast(_AsGiven):
    """What ``cleansteer forecast`` says of a training before it is done."""

    setting: str
    component: str
    features: list[int] | None = None
    """Those that would be trained; None: all."""
    n_features: int
    chosen: str
    """How they were chosen, in words."""
    n_steps: int
    learning_rate: float
    beta2: float
    gain: float
    """Fall of the held-out loss, in nats a token."""
    kl: float
    """KL(without || with the adapter) of the next token on the reference, in nats."""
    moved: float | None = None
    """Mean over reference tokens of how many downstream features move by more than 0.2 of their mean
    activation where they fire."""
    kl_budget: float | None = None
    gain_at_budget: float | None = None
    """The gain of the same edit, scaled to the budget where its KL is above it."""


class TrainingRecord(Versioned):
    """``training.json``: what was trained on what, and what it gave.

    Written before the first step, so that an interrupted training can go on; the entries that only a
    finished one has (``n_parameters`` and those after it) are absent until then.
    """

    FORMAT: ClassVar[str] = "cleansteer-training/1"
    REMEDY: ClassVar[str] = "train anew into another --out"

    format: Literal["cleansteer-training/1"] = "cleansteer-training/1"
    setting: SettingName
    model: TrainedModel
    options: TrainingOptions
    data: ExampleCount
    evaluated: ExampleCount
    versions: Mapping[str, str]
    baseline: str | None = None
    """``lora`` or ``ia3`` where PEFT's own was trained for comparison."""
    component: Mapping[str, JsonValue]
    """Its name under ``component``, and its options."""
    targets: list[TrainedTarget] | None = None
    """The places that are edited, where there are several; what one alone is stands in the entries of
    the same names here."""
    hook: str | None = None
    sae: TrainedSae | None = None
    allowed: list[int] | None = None
    """Features that may be edited; None: all."""
    select: int | Literal["all"] | None = None
    """How many of them were asked for; None: fewer than all where far fewer hold nearly all of what
    there is to gain, and in older records all."""
    by: Relevance | None = None
    """By what these were chosen; older records, which lack it, by the gradient."""
    auto_beta2: bool | None = None
    """True where beta2 follows from how often the features fire."""
    reference: str | None = None
    """Fingerprint of the texts that drift and KL are measured on."""
    trust: Verdict | None = None
    """The allowlist's verdict."""
    ranked_by: RankedBy | None = None
    """What the ranking goes by that its features were chosen from; older records lack it."""
    features: list[int] | None = None
    """Features that were trained; None: all."""
    beta2: float | None = None
    never_fire: int | None = None
    """How many of these features never fire in the examples; None where that was not counted."""
    relevance: str | None = None
    """How they were chosen of those that are allowed; None: they are all."""
    chosen: str | None = None
    """How the features were chosen, in words."""
    n_parameters: int | None = None
    n_steps: int | None = None
    metrics: Losses | None = None
    fresh: FreshLosses | None = None
    """On examples that nothing was chosen by; None where there are none."""
    effects: Effects | None = None
    """How much the adapter changes; older records lack it."""
    budget: Budget | None = None
    """None where there is none."""
    history: list[LogEntry] | None = None

    @property
    def finished(self) -> bool:
        """True once the training has come to its end."""
        return self.metrics is not None

    @property
    def component_name(self) -> str:
        """The component, or the baseline."""
        return str(self.component["component"])

    @property
    def places(self) -> list[TrainedTarget]:
        """The places that are edited, be it one or several; none of a baseline."""
        if self.targets is not None:
            return list(self.targets)
        if self.hook is None or self.sae is None:
            return []
        entries = {name: getattr(self, name) for name in TrainedTarget.model_fields}
        return [TrainedTarget(**entries)]

    @property
    def n_features(self) -> int:
        """How many features are edited; 0 for a baseline."""
        return sum(place.n_features for place in self.places)

    def with_features(self, features: Sequence[list[int] | None]) -> "TrainingRecord":
        """The same with the features that are trained at each place."""
        if self.targets is None:
            return self.model_copy(update={"features": features[0]})
        pairs = zip(self.targets, features, strict=True)
        found = [target.model_copy(update={"features": chosen}) for target, chosen in pairs]
        return self.model_copy(update={"targets": found})

    def differences(self, other: "TrainingRecord") -> list[str]:
        """Names of the entries, of those that say what is trained on what, in which another differs.

        Versions and all that is known only after the start do not count.
        """
        return [name for name in _ASKED if _asked(self, name) != _asked(other, name)]

    @model_serializer(mode="wrap")
    def _as_given(self, serialize: Serialize) -> dict[str, JsonValue]:
        return _given(self, serialize(self))


_ASKED = (
    "setting",
    "model",
    "options",
    "data",
    "evaluated",
    "baseline",
    "component",
    "targets",
    "hook",
    "sae",
    "allowed",
    "select",
    "by",
    "auto_beta2",
    "reference",
    "trust",
)
_LATER = {"source", "attention", "n_used", "n_cut", "n_tokens", "n_tokens_lost"}
_CHOSEN = {"features", "ranked_by"}
"""Entries of a target that are not asked for."""


def _asked(record: TrainingRecord, name: str) -> object:
    value = getattr(record, name)
    if isinstance(value, TrainedModel | ExampleCount):
        return value.model_dump(exclude=_LATER)
    if name == "targets" and record.targets is not None:
        return [target.model_dump(exclude=_CHOSEN) for target in record.targets]
    return value


def _given(record: Record, entries: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The entries that were given, and the format: absent and null are not the same in the file."""
    return {
        name: value
        for name, value in entries.items()
        if name == "format" or name in record.model_fields_set
    }
