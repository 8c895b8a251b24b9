"""Typed records: what cleansteer writes as JSON, each written and read by one class.

Every record is a frozen pydantic model. ``Record.read`` and ``Record.write`` are the only way to and
from disk, and check the format's version; ``cleansteer schema`` prints the JSON schemas.
"""

from .allowlist import Allowlist, Criterion, ModelSource, SaeSource
from .controls import (
    Controls,
    DensePanel,
    LabelReliability,
    RandomComparison,
    RandomDirections,
    ResidualSpace,
)
from .export import ExportedEdit, ExportRecord
from .figures import Interval
from .forecast import ForecastCheck
from .fresh import Comparison, FreshCheck
from .labels import LabelJudgement, Push
from .manifest import CallEntry, Fingerprints, Manifest, PerSae
from .pilot import PilotReport, PilotStep
from .record import Record, Versioned
from .schema import schemas
from .screening import Screening
from .selfcheck import SelfCheck
from .skill import Skill
from .sweep import SweepRecord
from .training import TrainingRecord
from .verdict import AxisVerdict, Verdict

__all__ = [
    "Allowlist",
    "AxisVerdict",
    "CallEntry",
    "Comparison",
    "Controls",
    "Criterion",
    "DensePanel",
    "ExportRecord",
    "ExportedEdit",
    "Fingerprints",
    "ForecastCheck",
    "FreshCheck",
    "Interval",
    "LabelJudgement",
    "LabelReliability",
    "Manifest",
    "ModelSource",
    "PerSae",
    "PilotReport",
    "PilotStep",
    "Push",
    "RandomComparison",
    "RandomDirections",
    "Record",
    "ResidualSpace",
    "SaeSource",
    "Screening",
    "SelfCheck",
    "Skill",
    "SweepRecord",
    "TrainingRecord",
    "Verdict",
    "Versioned",
    "schemas",
]
