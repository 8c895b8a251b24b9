"""The evidence for a ranking: skill, fresh check, controls, validation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..model.checks import LEAST_SPLIT

if TYPE_CHECKING:
    from .controls import (
        against_random_directions,
        reliability,
        residual_space,
        scored_halves,
        split_half,
        without_dense_panel,
    )
    from .examination import targets_of
    from .forecasts import check_enough_eligible, check_forecasts, choose_groups_by_forecast
    from .fresh import GROUPS, MEASURES, Groups, check_enough, choose_groups, compare_groups
    from .pooling import fit_pooled, shared, transfer
    from .sources import validate_sources
    from .tables import (
        LabelledTable,
        read_all,
        read_columns,
        read_labelled,
        read_run,
        refuse_repeated,
    )
    from .usability import judge_labels
    from .validation import validate, validate_sets

__all__ = [
    "GROUPS",
    "LEAST_SPLIT",
    "MEASURES",
    "Groups",
    "LabelledTable",
    "against_random_directions",
    "check_enough",
    "check_enough_eligible",
    "check_forecasts",
    "choose_groups",
    "choose_groups_by_forecast",
    "compare_groups",
    "fit_pooled",
    "judge_labels",
    "read_all",
    "read_columns",
    "read_labelled",
    "read_run",
    "refuse_repeated",
    "reliability",
    "residual_space",
    "scored_halves",
    "shared",
    "split_half",
    "targets_of",
    "transfer",
    "validate",
    "validate_sets",
    "validate_sources",
    "without_dense_panel",
]

_MODULES = {
    "validate": "validation",
    "validate_sets": "validation",
    "choose_groups": "fresh",
    "compare_groups": "fresh",
    "check_enough": "fresh",
    "check_enough_eligible": "forecasts",
    "check_forecasts": "forecasts",
    "choose_groups_by_forecast": "forecasts",
    "Groups": "fresh",
    "GROUPS": "fresh",
    "MEASURES": "fresh",
    "reliability": "controls",
    "split_half": "controls",
    "against_random_directions": "controls",
    "without_dense_panel": "controls",
    "residual_space": "controls",
    "scored_halves": "controls",
    "read_all": "tables",
    "read_run": "tables",
    "read_labelled": "tables",
    "read_columns": "tables",
    "refuse_repeated": "tables",
    "LabelledTable": "tables",
    "fit_pooled": "pooling",
    "shared": "pooling",
    "transfer": "pooling",
    "targets_of": "examination",
    "judge_labels": "usability",
    "validate_sources": "sources",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: scikit-learn and LightGBM take a second.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
