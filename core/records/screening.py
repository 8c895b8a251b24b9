"""What a screening concluded."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from ..choices import CollateralKind, RankedBy
from .controls import Controls
from .forecast import ForecastCheck
from .fresh import FreshCheck
from .labels import LabelJudgement, Push
from .manifest import PerSae
from .pilot import PilotReport
from .record import Versioned
from .selfcheck import SelfCheck
from .skill import Skill
from .verdict import Verdict


class Screening(Versioned):
    """``screening.json``: how a run's features were ranked, and how far to trust it."""

    FORMAT: ClassVar[str] = "cleansteer-screening/1"
    REMEDY: ClassVar[str] = "screen anew (--overwrite), or use the version that wrote it"

    format: Literal["cleansteer-screening/1"] = "cleansteer-screening/1"
    setting: str
    """The setting's name."""
    setting_fingerprint: str
    n_features: int
    """Features in the dictionary."""
    n_eligible: int
    """Features whose firing rate lies in the range that is labelled."""
    n_labelled: int
    """0 for a ranking by linear response alone; with a measured ranking all that could be labelled."""
    ranked_by: RankedBy = "labels"
    """What the ranking goes by."""
    mode: str
    """How features were steered."""
    coefficient: float
    """Median intervention value over the labelled features; over those of the fresh check, where none
    is labelled."""
    mean_l0: PerSae[float]
    """Mean number of active features on final tokens, of both SAEs."""
    skill: Mapping[str, Skill]
    """By label; empty where no feature is labelled."""
    fresh_check: FreshCheck
    forecasts: ForecastCheck | None = None
    """Of a ranking by linear response alone; of a measured one it is about its labels."""
    controls: Controls | None
    """None where no feature is labelled: they are about labels."""
    self_check: SelfCheck
    warnings: list[str]
    trust: Verdict
    reliability: PilotReport | None = None
    """Where the setting asks for a reliability."""
    shuffled_floor: float | None = None
    """95 % quantile of the out-of-fold Spearman that shuffled labels reach; None in runs of earlier
    versions, which did not measure it."""
    collateral: CollateralKind = "absolute"
    """By which labels the collateral axis goes."""
    labels: Mapping[str, LabelJudgement] | None = None
    """Whether the labels that are ranked by can be used; None in runs of earlier versions."""
    push: Push | None = None
    """None in runs of earlier versions."""
    ranking_fingerprint: str | None = None
    """Of the ranking that the verdict is about; None in runs of earlier versions."""
