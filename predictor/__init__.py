"""Predict steering labels from statistics, and say how far to trust it.

Three rooms: ``model`` predicts and ranks; ``verdict`` states the rules of trust and chooses the
features of an allowlist; ``evidence`` measures skill, checks on fresh contexts and controls, and ends
a validation with a verdict. Each imports only those named before it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import ModularityPredictor, load, save

__all__ = ["ModularityPredictor", "load", "save"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: scikit-learn and LightGBM take a second.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import model

    return getattr(model, name)
