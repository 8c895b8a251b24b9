"""What a run does not hold yet."""

import shlex
from dataclasses import dataclass

from ..core.bundled import bundled_settings
from .run import Run


@dataclass(frozen=True)
class Missing:
    """What a run does not hold yet, and the command that makes it."""

    what: str
    command: str


def find_missing(run: Run) -> list[Missing]:
    """What a run does not hold yet, with the command that goes on with it."""
    what = _what_is_missing(run)
    if what is None:
        return []
    name = run.setting.name
    setting = name if name in bundled_settings() else f"{name}.toml"
    command = f"cleansteer screen {shlex.quote(setting)}"
    return [Missing(what, f"{command} --run {shlex.quote(str(run.directory.path))}")]


def _what_is_missing(run: Run) -> str | None:
    if run.features is None:
        return "This run holds no statistics yet: there is nothing to show of its features."
    if run.labels is None and run.ranking is not None:
        return (
            "No feature of this run was steered: the ranking comes from a predictor that was fitted "
            "on other settings, there is nothing measured to check it with, and no verdict."
        )
    if run.labels is None:
        return (
            "No feature of this run was steered yet: there are statistics, but no labels, no "
            "ranking and no verdict."
        )
    if run.screening is None:
        return (
            "This run is not screened to its end: there are labels, but no fresh check, no verdict "
            "and no allowlist."
        )
    return None
