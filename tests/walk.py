"""Do what a page shows, in one process, as a program: its imports take longer than it does.

Reads ``[{"folder": ..., "steps": [[argument...] or Python code...]}...]`` from stdin and writes, for
every step, its exit code and output as JSON. Settings are cut small and the predictor is made
cheap; everything else is as a person has it.
"""

import json
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import several

MOST = {
    "corpus": {"n_texts": 200, "n_contexts": 128},
    "heldout_corpus": {"n_texts": 200, "n_contexts": 32, "n_evaluated": 32},
    "steering": {"n_features": 40, "contexts_per_type": 6, "n_controls": 10},
}
_STDLIB = {"packages": ("stdlib",)}


def cut_settings() -> None:
    """Make every setting small, under its own name."""
    from cleansteer.core.settings import Setting
    from cleansteer.study import catalogue

    read = catalogue.read_setting

    def cut(path: Path) -> Setting:
        setting = read(path)
        for name, most in MOST.items():
            section = getattr(setting, name)
            changes = {
                key: min(value, getattr(section, key) or value) for key, value in most.items()
            }
            fewer = _STDLIB if getattr(section, "packages", None) else {}
            setting = setting.replace(name, **changes | fewer)
        return setting

    catalogue.read_setting = cut
    replace = Setting.replace

    def replace_within(self: Setting, section: str, **changes: Any) -> Setting:
        """As many labels as are asked for would take most of the time."""
        if isinstance(changes.get("n_features"), int):
            changes["n_features"] = min(changes["n_features"], MOST["steering"]["n_features"])
        return replace(self, section, **changes)

    Setting.replace = replace_within


def step(asked: list[str] | str) -> dict[str, object]:
    work = partial(several.command, asked) if isinstance(asked, list) else partial(run, asked)
    try:
        told = several.done(work)
    except Exception:
        told = {"code": 1, "out": "", "err": traceback.format_exc()}
    return told


def run(code: str) -> None:
    exec(compile(code, "page", "exec"), {"__name__": "page"})


def main() -> None:
    asked = json.load(sys.stdin)
    import quick
    import torch

    torch.set_num_threads(1)
    quick.cheapen(pytest.MonkeyPatch())
    cut_settings()
    found = []
    for page in asked:
        os.chdir(page["folder"])
        found.append([step(each) for each in page["steps"]])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
