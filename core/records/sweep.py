"""What was tried to find a good training, and what each trial gave."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from ..choices import Relevance
from ..training import TrainingOptions
from .record import Record, SparseRecord, Versioned
from .training import ExampleCount, Losses, SettingName, TrainedModel, TrainedTarget

Sampler = Literal["tpe", "grid"]
"""How trials are chosen: by a tree-structured Parzen estimator (J. Bergstra et al., "Algorithms for
Hyper-Parameter Optimization", NeurIPS 2011, section 4), as Optuna has it; or every combination, in random
order."""


class SearchSpace(Record):
    """What trials may take."""

    learning_rates: list[float] = Field(min_length=1)
    """The values; of a range its ends."""
    is_range: bool
    """True where all between the ends may be taken, evenly on a logarithmic scale."""
    components: list[str] = Field(min_length=1)
    beta2: list[float | Literal["auto"]] = Field(min_length=1)
    select: list[int | Literal["auto", "all"]] = Field(min_length=1)

    @property
    def size(self) -> int | None:
        """How many combinations there are; None: any number."""
        if self.is_range:
            return None
        return len(self.learning_rates) * len(self.components) * len(self.beta2) * len(self.select)


class Point(Record):
    """What a trial takes."""

    learning_rate: float
    component: str
    beta2: float | Literal["auto"]
    select: int | Literal["auto", "all"]


class Trial(SparseRecord):
    """One training of a sweep."""

    number: int
    """From 0, in the order in which they were done."""
    point: Point
    state: Literal["complete", "failed"]
    reason: str | None = None
    """Why it failed."""
    n_features: int | None = None
    n_parameters: int | None = None
    n_steps: int | None = None
    used_beta2: float | None = None
    """AdamW's beta2, where it was left to how often features fire."""
    chosen_by: Losses | None = None
    """On the half of the held-out examples that the adapter, and the best trial, are chosen by."""
    fresh: Losses | None = None
    """On the other half, that nothing is chosen by."""
    kl: float | None = None
    """KL(without || with the adapter) of the next token on the reference, in nats; with a budget on texts
    that nothing was fitted to."""
    seconds: float
    """How long it took; the one thing that is not the same when it is done again."""

    @property
    def gain(self) -> float | None:
        """Fall of the loss that trials are chosen by."""
        return None if self.chosen_by is None else self.chosen_by.before - self.chosen_by.after

    @property
    def fresh_gain(self) -> float | None:
        """Fall of the loss on the other half."""
        return None if self.fresh is None else self.fresh.before - self.fresh.after


class SweepRecord(Versioned, SparseRecord):
    """``sweep.json``: what was asked for, and every trial that is done."""

    FORMAT: ClassVar[str] = "cleansteer-sweep/1"
    REMEDY: ClassVar[str] = "sweep anew into another --out"

    format: Literal["cleansteer-sweep/1"] = "cleansteer-sweep/1"
    setting: SettingName
    model: TrainedModel
    options: TrainingOptions
    """Of all trials; the learning rate and beta2 are the trial's own."""
    component_options: Mapping[str, Mapping[str, float]]
    """By component."""
    places: list[TrainedTarget]
    """What is edited, and which features may be."""
    by: Relevance
    data: ExampleCount
    evaluated: ExampleCount
    """The half of the held-out examples that is chosen by."""
    fresh: ExampleCount
    """The other half."""
    reference: str | None = None
    """Fingerprint of the texts that KL is measured on."""
    space: SearchSpace
    sampler: Sampler
    n_trials: int
    """How many were asked for."""
    versions: Mapping[str, str]
    trials: list[Trial]

    @property
    def ranked(self) -> list[Trial]:
        """The trials that did not fail, the best first: by the loss that they are chosen by."""
        complete = [trial for trial in self.trials if trial.chosen_by is not None]
        return sorted(complete, key=lambda t: t.chosen_by.after if t.chosen_by else 0.0)

    @property
    def best(self) -> Trial | None:
        """The first of these; None where all failed."""
        return next(iter(self.ranked), None)

    def differences(self, other: "SweepRecord") -> list[str]:
        """Names of the entries, of those that say what is tried, in which another differs; how many
        trials there shall be does not count.
        """
        return [name for name in _ASKED if getattr(self, name) != getattr(other, name)]


_ASKED = (
    "setting",
    "model",
    "options",
    "component_options",
    "places",
    "by",
    "data",
    "evaluated",
    "fresh",
    "reference",
    "space",
    "sampler",
)
