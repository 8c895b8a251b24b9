"""What a run does not hold yet."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from ..core.bundled import bundled_settings
from ..core.settings import Setting
from .run import Run


@dataclass(frozen=True)
class Missing:
    """What a run does not hold yet, and the command, or the call in Python, that makes it."""

    what: str
    command: str


def find_missing(run: Run) -> list[Missing]:
    """What a run does not hold yet, with the command that goes on with it."""
    what = _what_is_missing(run)
    if what is None:
        return []
    return [Missing(what, _go_on(run.setting, run.directory.path))]


def _go_on(setting: Setting, path: Path) -> str:
    """What goes on with a run of the setting."""
    given = [
        name
        for name, section in (
            ("model=..., tokenizer=...", setting.model),
            ("sae=...", setting.sae),
            ("downstream_sae=...", setting.downstream_sae),
            ("texts=...", setting.corpus),
            ("heldout_texts=...", setting.heldout_corpus),
        )
        if section.in_memory is not None
    ]
    asked = setting.steering.n_features
    unusual = [asked] if asked in (0, "all") else []
    if given:
        given += [f"labels={asked!r}" for asked in unusual]
        return f"cleansteer.screen({', '.join(given)}, run={str(path)!r})"
    name = setting.name if setting.name in bundled_settings() else f"{setting.name}.toml"
    more = "".join(f" --labels {asked}" for asked in unusual)
    return f"cleansteer screen {shlex.quote(name)}{more} --run {shlex.quote(str(path))}"


def _what_is_missing(run: Run) -> str | None:
    if run.features is None:
        return "This run holds no statistics yet: there is nothing to show of its features."
    if run.by_response:
        if run.screening is not None:
            return None
        return (
            "This run is to be ranked by linear response, without labels, and is not screened to its "
            "end: there are statistics, but no verdict and no allowlist."
        )
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
