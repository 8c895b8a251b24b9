"""Adapters that edit a language model through chosen features of its SAEs: a method of PEFT."""

import importlib
from typing import TYPE_CHECKING

from .registration import register

register()

from .config import SaeAdapterConfig, Target  # noqa: E402
from .loading import load  # noqa: E402
from .model import SaeAdapterModel  # noqa: E402
from .outlook import forecast  # noqa: E402
from .request import train  # noqa: E402
from .sweeps import sweep  # noqa: E402
from .tracking import TrackFeatures  # noqa: E402

if TYPE_CHECKING:
    from .arguments import DPOConfig as DPOConfig
    from .arguments import SFTConfig as SFTConfig

_TRL = {"DPOConfig": "arguments", "SFTConfig": "arguments"}
"""Names that TRL is needed for, and their modules, imported when they are first used."""

__all__ = [
    "DPOConfig",
    "SFTConfig",
    "SaeAdapterConfig",
    "SaeAdapterModel",
    "Target",
    "TrackFeatures",
    "forecast",
    "load",
    "register",
    "sweep",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _TRL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_TRL[name]}", __name__), name)
