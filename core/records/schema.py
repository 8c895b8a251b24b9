"""The JSON schemas of all records that have a file of their own."""

from pydantic import BaseModel

from ..settings import Setting
from ..tables import Json
from .allowlist import Allowlist
from .audit import AuditRecord
from .export import ExportRecord
from .manifest import Manifest
from .movement import MovementRecord
from .pulled import PulledRecord
from .record import Versioned
from .screening import Screening
from .sweep import SweepRecord
from .training import TrainingRecord
from .tuned import TunedRecord
from .validation import Examination

VERSIONED: dict[str, type[Versioned]] = {
    "manifest": Manifest,
    "screening": Screening,
    "allowlist": Allowlist,
    "training": TrainingRecord,
    "validation": Examination,
    "export": ExportRecord,
    "audit": AuditRecord,
    "movement": MovementRecord,
    "pulled": PulledRecord,
    "tuned": TunedRecord,
    "sweep": SweepRecord,
}
"""Records by the name of their file, without its ending (``export``: the sidecar of any export)."""


def schemas() -> dict[str, Json]:
    """JSON schema (draft 2020-12) by file: ``setting`` and those of :data:`VERSIONED`."""
    models: dict[str, type[BaseModel]] = {"setting": Setting, **VERSIONED}
    return {name: model.model_json_schema() for name, model in models.items()}
