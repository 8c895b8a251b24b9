"""cleansteer: which sparse-autoencoder features of a language model steer cleanly.

Tells it before anyone steers, says how far it can be trusted, and lets training use only those::

    import cleansteer as cs

    study = cs.screen("mini-gpt2-relu", labels=300)
    study.verdict
    study.ranking
    study.allowlist(top=50).save("clean.json")
"""

import importlib
from typing import TYPE_CHECKING

import wrapt

from . import moved

if TYPE_CHECKING:
    from .auditing.request import audit as audit
    from .auditing.request import audit_checkpoints as audit_checkpoints
    from .auditing.request import audit_lora as audit_lora
    from .auditing.request import audit_tuned as audit_tuned
    from .core.docstrings import docstrings as docstrings
    from .core.errors import InputError as InputError
    from .core.records import Allowlist as Allowlist
    from .core.records import FreshCheck as FreshCheck
    from .core.records import Interval as Interval
    from .core.records import Screening as Screening
    from .core.records import Skill as Skill
    from .core.records import SweepRecord as SweepRecord
    from .core.records import TrainingRecord as TrainingRecord
    from .core.records import Verdict as Verdict
    from .core.records import schemas as schemas
    from .core.settings import Setting as Setting
    from .core.training import TrainingOptions as TrainingOptions
    from .report.adapter import write_audit as write_audit
    from .study.actions import compare as compare
    from .study.actions import export as export
    from .study.actions import forecast as forecast
    from .study.actions import sweep as sweep
    from .study.actions import train as train
    from .study.actions import validate as validate
    from .study.actions import write_report as write_report
    from .study.catalogue import bundled as bundled
    from .study.catalogue import load_setting as load_setting
    from .study.doctor import doctor as doctor
    from .study.entry import load_study as load_study
    from .study.entry import open_study as open_study
    from .study.entry import screen as screen
    from .study.fitting import fit as fit
    from .study.study import Study as Study

__version__ = "0.1.0"

_FACE = {
    "Allowlist": "core.records",
    "FreshCheck": "core.records",
    "InputError": "core.errors",
    "Interval": "core.records",
    "Screening": "core.records",
    "Setting": "core.settings",
    "Skill": "core.records",
    "Study": "study.study",
    "SweepRecord": "core.records",
    "TrainingOptions": "core.training",
    "TrainingRecord": "core.records",
    "Verdict": "core.records",
    "audit": "auditing.request",
    "audit_checkpoints": "auditing.request",
    "audit_lora": "auditing.request",
    "audit_tuned": "auditing.request",
    "bundled": "study.catalogue",
    "compare": "study.actions",
    "docstrings": "core.docstrings",
    "doctor": "study.doctor",
    "export": "study.actions",
    "fit": "study.fitting",
    "forecast": "study.actions",
    "load_setting": "study.catalogue",
    "load_study": "study.entry",
    "open_study": "study.entry",
    "schemas": "core.records",
    "screen": "study.entry",
    "sweep": "study.actions",
    "train": "study.actions",
    "validate": "study.actions",
    "write_audit": "report.adapter",
    "write_report": "study.actions",
}
"""Public names, and the modules that they come from, imported when they are first used."""

__all__ = ["__version__", *_FACE]


def __getattr__(name: str) -> object:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_FACE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACE})


def _register_adapters(peft: object) -> None:
    from . import adapters  # noqa: F401


# Once PEFT is imported, and only then: it takes seconds.
wrapt.register_post_import_hook(_register_adapters, "peft")
moved.install()
