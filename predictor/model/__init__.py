"""The predictor: what it predicts, from what, and with what model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blend import FOLDS
    from .checks import LEAST_FITTED, LEAST_SPLIT
    from .committee import uncertainty
    from .files import load, save
    from .forecasts import forecasts_of
    from .models import ModularityPredictor
    from .ranking import rank_by_measurement, rank_by_others, rank_by_response, rank_features
    from .sets import predictor_sets, statistics_of
    from .targets import (
        ABSOLUTE,
        CLEAN_SCORE,
        HIGHER_IS_CLEANER,
        MATCHED,
        RELATIVE,
        Scheme,
        clean_score,
        primary_labels,
        scheme_for,
        scheme_of,
    )
    from .transforms import rank_normalised

__all__ = [
    "ABSOLUTE",
    "CLEAN_SCORE",
    "FOLDS",
    "HIGHER_IS_CLEANER",
    "LEAST_FITTED",
    "LEAST_SPLIT",
    "MATCHED",
    "RELATIVE",
    "ModularityPredictor",
    "Scheme",
    "clean_score",
    "forecasts_of",
    "load",
    "predictor_sets",
    "primary_labels",
    "rank_by_measurement",
    "rank_by_others",
    "rank_by_response",
    "rank_features",
    "rank_normalised",
    "save",
    "scheme_for",
    "scheme_of",
    "statistics_of",
    "uncertainty",
]

_MODULES = {
    "ModularityPredictor": "models",
    "FOLDS": "blend",
    "rank_features": "ranking",
    "rank_by_measurement": "ranking",
    "rank_by_others": "ranking",
    "rank_by_response": "ranking",
    "forecasts_of": "forecasts",
    "save": "files",
    "load": "files",
    "uncertainty": "committee",
    "primary_labels": "targets",
    "clean_score": "targets",
    "ABSOLUTE": "targets",
    "RELATIVE": "targets",
    "MATCHED": "targets",
    "scheme_for": "targets",
    "Scheme": "targets",
    "scheme_of": "targets",
    "CLEAN_SCORE": "targets",
    "HIGHER_IS_CLEANER": "targets",
    "predictor_sets": "sets",
    "statistics_of": "sets",
    "LEAST_FITTED": "checks",
    "LEAST_SPLIT": "checks",
    "rank_normalised": "transforms",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: scikit-learn and LightGBM take a second.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
