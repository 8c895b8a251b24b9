"""What a training was, and what it gave."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import JsonValue

from ..training import TrainingOptions
from .record import Record, Versioned
from .verdict import Verdict


class SettingName(Record):
    """The setting that a training was of."""

    name: str
    fingerprint: str


class TrainedModel(Record):
    """The model that was adapted."""

    name: str
    """As the setting names it."""
    dtype: str
    source: str | None = None
    """Hub id or resolved directory; once the training is finished."""


class TrainedSae(Record):
    """The SAE through whose features the adapter edits."""

    label: str
    fingerprint: str
    n_features: int


class ExampleCount(Record):
    """Examples that were trained on or scored."""

    name: str | None = None
    n: int
    n_used: int | None = None
    """Of these, the ones that the longest length allowed left something of; once finished."""
    fingerprint: str


class Losses(Record):
    """Held-out loss before training, and of the best adapter."""

    before: float
    after: float


class LogEntry(Record):
    """What was logged at an optimiser step; None where it was not finite or not measured."""

    step: int
    loss: float | None = None
    eval_loss: float | None = None


class TrainingRecord(Versioned):
    """``training.json``: what was trained on what, and what it gave.

    Written before the first step, so that an interrupted training can go on; the entries that only a
    finished one has (``metrics`` and those after it) are None until then.
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
    hook: str | None = None
    sae: TrainedSae | None = None
    allowed: list[int] | None = None
    """Features that may be edited; None: all."""
    select: int | None = None
    """How many of them were taken by their gradients; None: all."""
    auto_beta2: bool | None = None
    """True where beta2 follows from how often the features fire."""
    reference: str | None = None
    """Fingerprint of the texts of the drift penalty."""
    trust: Verdict | None = None
    """The allowlist's verdict."""
    features: list[int] | None = None
    """Features that were trained; None: all."""
    beta2: float | None = None
    never_fire: int | None = None
    """How many of these features never fire in the examples."""
    chosen: str | None = None
    """How the features were chosen, in words."""
    metrics: Losses | None = None
    n_parameters: int | None = None
    n_steps: int | None = None
    history: list[LogEntry] | None = None

    @property
    def finished(self) -> bool:
        """True once the training has come to its end."""
        return self.metrics is not None
