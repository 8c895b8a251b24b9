"""Everything that README and documentation show, done in a prepared folder a page."""

import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forerunner
import hub
import lessons
import pages
import pytest
import tiny
import torch
import world

TESTS = Path(hub.__file__).parent
OTHERS = ("a", "b", "c")
PREPARED: pages.Steps = [
    ["screen", "my-setting.toml"],
    *(["screen", f"{name}.toml"] for name in OTHERS),
    ["features", "my-setting.toml", "--run", "runs/unlabelled"],
    ["screen", "mini-gpt2-relu"],
]
SAES = "models/jbloom/GPT2-Small-SAEs-Reformatted"
OFTEN = torch.full((hub.FEATURES,), -0.5)
"""Encoder biases of the stand-in's SAEs with which most features fire, and not everywhere."""


@dataclass(frozen=True)
class Walked:
    """What came of the steps of every page, and where."""

    folder: Path
    results: dict[Path, list[dict[str, Any]]]

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("*/runs/*/manifest.json"))


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    folder = tmp_path_factory.mktemp("pages")
    hub.build(folder / "hub")
    forerunner.build(folder / "hub")
    for sae in (folder / "hub" / SAES).iterdir():
        world.overwrite_tensor(sae, b_enc=OFTEN)
    setting = pages.setting_of(pages.ROOT / "docs" / "own-model.md")
    assert setting is not None
    prepare(folder / "prepared", setting)
    with hub.serve(folder / "hub") as served:
        environment = served.environment(folder / "home")
        (made,) = walk(environment, {folder / "prepared": PREPARED})
        for asked, done in zip(PREPARED, made, strict=True):
            assert done["code"] == 0, (asked, done["err"])
        done: set[str] = set()
        asked = {lay_out(page, folder, done): pages.steps_of(page) for page in pages.PAGES}
        results = walk(environment, asked)
    return Walked(folder, dict(zip(pages.PAGES, results, strict=True)))


def walk(environment: dict[str, str], asked: dict[Path, pages.Steps]) -> list[Any]:
    """Do the steps, each in its folder (see walk.py)."""
    steps = [{"folder": str(folder), "steps": steps} for folder, steps in asked.items()]
    done = subprocess.run(
        [sys.executable, str(TESTS / "walk.py")],
        input=json.dumps(steps),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def prepare(folder: Path, setting: str) -> None:
    """Files that pages speak of."""
    folder.mkdir()
    (folder / "miniatures").symlink_to(pages.ROOT / "miniatures")
    (folder / "my-setting.toml").write_text(setting, "utf-8")
    for name in OTHERS:
        renamed = setting.replace('name = "my-setting"', f'name = "{name}"', 1)
        (folder / f"{name}.toml").write_text(renamed, "utf-8")
    for seed, name in enumerate(("texts", "other-texts")):
        draw = random.Random(seed)
        lines = [
            " ".join(f"w{draw.randrange(2, tiny.VOCABULARY)}" for _ in range(200))
            for _ in range(120)
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    lessons.write(folder / "texts.jsonl", lessons.texts(24))
    lessons.write(folder / "reference.jsonl", lessons.texts(8, seed=5))
    lessons.write(folder / "pairs.jsonl", lessons.preferences(24))
    (folder / "map.toml").write_text('[columns]\nfiring_rate = "final_act_freq"\n', "utf-8")
    draw = random.Random(0)
    rows = [f"{i},{draw.random()},{draw.random()},{draw.random()}" for i in range(60)]
    table = ["feature,firing_rate,decoder_norm,stability_abs", *rows]
    (folder / "table.csv").write_text("\n".join(table) + "\n", "utf-8")


def lay_out(page: Path, folder: Path, done: set[str]) -> Path:
    """A copy of what is prepared, with the page's own setting, without the runs that it makes from
    nothing: of those that another page makes as well it finds what is there, as after a first try.
    """
    place = folder / page.stem
    shutil.copytree(folder / "prepared", place, symlinks=True)
    shown = pages.setting_of(page)
    if shown is not None:
        (place / "my-setting.toml").write_text(shown, "utf-8")
    for step in pages.steps_of(page):
        if isinstance(step, list) and step[0] == "screen" and "--run" not in step:
            path = place / step[1]
            setting = path.read_text("utf-8") if path.is_file() else step[1]
            if setting not in done:
                shutil.rmtree(place / "runs" / Path(step[1]).stem, ignore_errors=True)
            done.add(setting)
    return place
