"""What a finished screening says, read back from its run."""

from collections.abc import Mapping
from typing import Any

from ..core.errors import InputError
from ..core.runs import RunDirectory
from ..core.layout import SCREENING, SCREENING_FORMAT


def read_screening(run: RunDirectory) -> dict[str, Any]:
    """What ``screening.json`` of a run holds.

    Raises:
        InputError: it is missing, of another format version, or of another setting than the run.

    """
    found, path = run.json(SCREENING), run.path / SCREENING
    if found.get("format") != SCREENING_FORMAT:
        raise InputError(
            f"{path} has format {found.get('format')!r}, expected {SCREENING_FORMAT!r}; screen anew "
            "(--overwrite), or use the version that wrote it"
        )
    ours = run.manifest["setting_fingerprint"]
    if found.get("setting_fingerprint") != ours:
        raise InputError(
            f"{path} is of another setting (fingerprint {found.get('setting_fingerprint')!r}, this "
            f"run's is {ours!r}); delete it and screen anew"
        )
    return found


def fresh_comparison(check: Mapping[str, Any], measure: str, other: str) -> dict[str, Any]:
    """Predicted-clean against another group of the fresh check, in one measure."""
    comparisons: list[dict[str, Any]] = check["comparisons"]
    return next(c for c in comparisons if (c["measure"], c["other"]) == (measure, other))
