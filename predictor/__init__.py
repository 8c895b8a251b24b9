"""Predict steering labels from statistics, and say how far to trust it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .files import load, save
    from .models import ModularityPredictor

__all__ = ["ModularityPredictor", "load", "save"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: scikit-learn and LightGBM take a second.
    if name == "ModularityPredictor":
        from .models import ModularityPredictor

        return ModularityPredictor
    if name in ("load", "save"):
        from . import files

        return getattr(files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
