"""What a run is: setting, inputs, versions, how it was made."""

from collections.abc import Mapping
from typing import ClassVar, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from ..settings import Setting
from .pilot import PilotReport
from .record import Record, SparseRecord, Versioned
from .selfcheck import SelfCheck

T = TypeVar("T")


class PerSae(Record, Generic[T]):
    """A value for the steered and one for the downstream SAE."""

    sae: T
    downstream_sae: T


class Fingerprints(PerSae[str], SparseRecord):
    """Fingerprints of the tensors that a run was measured with."""

    model: str
    model_contents: str | None = None
    """Of the model's values rounded to bfloat16: the same in every number format."""


class CallEntry(Record):
    """A command that worked on a run."""

    command: list[str]
    """The command line; of a call from Python, one element with its text."""
    at: str
    """When, in UTC, ISO 8601."""


class Unmatched(Record):
    """A feature that no push makes reach the KL of mode ``matched``."""

    stage: str
    """What it was to be steered for."""
    feature: int
    target_kl: float
    kl: float
    """The KL, in nats, at the strongest push that was tried."""
    push: float
    """That push, in median norms of the residual stream."""


class Manifest(Versioned, SparseRecord):
    """``manifest.json``: everything that a run's tables depend on, and how they were made."""

    FORMAT: ClassVar[str] = "cleansteer-run/1"
    REMEDY: ClassVar[str] = "give another --run, or screen anew (--overwrite)"

    format: Literal["cleansteer-run/1"] = "cleansteer-run/1"
    setting: Setting
    setting_fingerprint: str
    setting_folder: str
    """Folder that the setting's relative paths start from."""
    versions: Mapping[str, str]
    """Of Python and of the libraries."""
    arguments: list[str] = Field(default_factory=list)
    """Keys of [steering] that were not the setting's file's but arguments; later commands keep them."""
    commands: list[CallEntry] = Field(default_factory=list)
    seconds: Mapping[str, float] = Field(default_factory=dict)
    """How long each stage took."""
    fingerprints: Fingerprints | None = None
    hooks: PerSae[str] | None = None
    centred: PerSae[bool] | None = None
    """Whether each SAE reads the stream minus its mean over the model dimension."""
    architectures: PerSae[str] | None = None
    mean_l0: PerSae[float] | None = None
    """Mean number of active features on final tokens."""
    n_eligible: int | None = None
    warnings: list[str] = Field(default_factory=list)
    evaluator: SelfCheck | None = None
    global_value: float | None = None
    """The global value c."""
    residual_norm: float | None = None
    """Median norm of what stands at the steered hook, over all tokens but the first of each context."""
    unmatched: list[Unmatched] = Field(default_factory=list)
    """Features that mode ``matched`` leaves out."""
    n_pairs: Mapping[str, int] = Field(default_factory=dict)
    """(feature, context) pairs steered, by stage."""
    reliability: PilotReport | None = None
    """The pilot's steps, where the setting asks for a reliability."""

    @model_validator(mode="before")
    @classmethod
    def _as_earlier_versions_meant(cls, data: object) -> object:
        """Runs made before settings said so have absolute collateral and no linear response."""
        match data:
            case {"setting": {"steering": dict(steering), **others}, **rest}:
                meant = {"collateral": "absolute", "response": False} | steering
                return rest | {"setting": others | {"steering": meant}}
        return data
