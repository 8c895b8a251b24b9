"""The evidence for a ranking: skill, fresh check, controls, validation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controls import (
        against_random_directions,
        reliability,
        residual_space,
        split_half,
        without_dense_panel,
    )
    from .fresh import GROUPS, MEASURES, Groups, check_enough, choose_groups, compare_groups
    from .records import Examination, Validation
    from .sources import validate_sources
    from .tables import LabelledTable, read_all, read_columns, read_run
    from .validation import validate

__all__ = [
    "GROUPS",
    "MEASURES",
    "Examination",
    "Groups",
    "LabelledTable",
    "Validation",
    "against_random_directions",
    "check_enough",
    "choose_groups",
    "compare_groups",
    "read_all",
    "read_columns",
    "read_run",
    "reliability",
    "residual_space",
    "split_half",
    "validate",
    "validate_sources",
    "without_dense_panel",
]

_MODULES = {
    "validate": "validation",
    "choose_groups": "fresh",
    "compare_groups": "fresh",
    "check_enough": "fresh",
    "Groups": "fresh",
    "GROUPS": "fresh",
    "MEASURES": "fresh",
    "reliability": "controls",
    "split_half": "controls",
    "against_random_directions": "controls",
    "without_dense_panel": "controls",
    "residual_space": "controls",
    "read_all": "tables",
    "read_run": "tables",
    "read_columns": "tables",
    "LabelledTable": "tables",
    "validate_sources": "sources",
    "Validation": "records",
    "Examination": "records",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: scikit-learn and LightGBM take a second.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
