"""Adapters that edit a language model through chosen features of its SAEs: a method of PEFT."""

from .registration import register

register()

from .config import SaeAdapterConfig, Target  # noqa: E402
from .model import SaeAdapterModel  # noqa: E402
from .request import train  # noqa: E402

__all__ = ["SaeAdapterConfig", "SaeAdapterModel", "Target", "register", "train"]
