"""Screened runs of tiny settings: two widths of one dictionary, and another model."""

import json
from pathlib import Path
from typing import Any

import pytest
import quick
import tiny
import world
from cleansteer.core.tables import write_json

LABELLED = 40


def settings(folder: Path) -> list[Path]:
    """Settings ``narrow`` and ``wide`` of one model and ``other`` of another."""
    found = []
    for name, n_features, home in (
        ("narrow", 96, folder),
        ("wide", 160, folder),
        ("other", 96, folder / "other"),
    ):
        text = world.build(home).read_text("utf-8")
        if name == "other":
            network = tiny.network(n_layer=3)
            network.save_pretrained(home / "model")
        sae = tiny.sae("standard", "blocks.1.hook_resid_pre", n_features=n_features)
        world.save_sae(sae, home / f"primary-{name}")
        text = text.replace('"tiny"', f'"{name}"').replace('"primary"', f'"primary-{name}"')
        path = home / f"{name}.toml"
        path.write_text(text.replace("n_features = 60", f"n_features = {LABELLED}"), "utf-8")
        found.append(path)
    return found


def screened(folder: Path) -> list[Path]:
    """Their runs."""
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        quick.cheapen(patch)
        for setting in settings(folder):
            runs.append(folder / "runs" / setting.stem)
            assert world.run(patch, "screen", setting, "--run", runs[-1]) == 0
    return runs


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    write_json(path, json.loads(path.read_text("utf-8")) | changes)
