"""What README and documentation show is done here, block by block, in a prepared folder a page."""

import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hub
import lessons
import pages
import pytest
import tiny
import typer
from cleansteer.cli.app import app

TESTS = Path(hub.__file__).parent
LANGUAGES = {"sh", "python", "toml", "text", "bibtex", "json"}
"""``sh`` is run, ``python`` too, ``toml`` named my-setting is what commands read; ``text`` is output."""
NOT_TRUSTED = 3
OTHERS = ("a", "b", "c")
Steps = list[list[str] | str]
Done = list[dict[str, Any]]


def setting_of(page: Path) -> str | None:
    """The setting that a page shows."""
    for fence in pages.fences(page):
        if fence.language == "toml" and tomllib.loads(fence.text).get("name") == "my-setting":
            return fence.text
    return None


def steps_of(page: Path) -> Steps:
    """What a page shows to be done with cleansteer."""
    steps: Steps = []
    for fence in pages.fences(page):
        if fence.language == "python":
            steps.append(fence.text)
        if fence.language == "sh":
            words = [shlex.split(command) for command in fence.commands]
            steps += [command[1:] for command in words if command[0] == "cleansteer"]
    return steps


def prepare(folder: Path, setting: str) -> None:
    """Files that pages speak of."""
    folder.mkdir()
    (folder / "benchmarks").symlink_to(pages.ROOT / "benchmarks")
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
    rows = ["feature,firing_rate,decoder_norm,stability_abs"]
    draw = random.Random(0)
    rows += [f"{i},{draw.random()},{draw.random()},{draw.random()}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(rows) + "\n", "utf-8")


PREPARED: Steps = [
    ["screen", "my-setting.toml"],
    *(["screen", f"{name}.toml"] for name in OTHERS),
    ["features", "my-setting.toml", "--run", "runs/unlabelled"],
    ["screen", "mini-gpt2-relu"],
]


@contextmanager
def walking(environment: dict[str, str]) -> Iterator[Any]:
    def walk(asked: list[dict[str, Any]]) -> list[Done]:
        done = subprocess.run(
            [sys.executable, str(TESTS / "walk.py")],
            input=json.dumps(asked),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[Done] = json.loads(done.stdout)
        return found

    yield walk


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Done]:
    """Every page's steps."""
    folder = tmp_path_factory.mktemp("pages")
    hub.build(folder / "hub")
    setting = setting_of(pages.ROOT / "docs" / "own-model.md")
    assert setting is not None
    prepare(folder / "prepared", setting)
    with (
        hub.serve(folder / "hub") as served,
        walking(served.environment(folder / "home")) as walk,
    ):
        (made,) = walk([{"folder": str(folder / "prepared"), "steps": PREPARED}])
        for asked, done in zip(PREPARED, made, strict=True):
            assert done["code"] == 0, (asked, done["err"])
        asked = []
        for page in pages.PAGES:
            place = folder / page.stem
            shutil.copytree(folder / "prepared", place, symlinks=True)
            steps = steps_of(page)
            for run in screened_first(steps):
                shutil.rmtree(place / run)
            shown = setting_of(page)
            if shown is not None:
                (place / "my-setting.toml").write_text(shown, "utf-8")
            asked.append({"folder": str(place), "steps": steps})
        return dict(zip(pages.PAGES, walk(asked), strict=True))


def screened_first(steps: Steps) -> set[Path]:
    """Runs that a page makes itself before it uses them: those must not be there."""
    runs = set()
    for step in steps:
        if isinstance(step, list) and step[0] == "screen" and "--run" not in step:
            runs.add(Path("runs") / Path(step[1]).stem)
    return runs


def name_of(page: Path) -> str:
    return str(page.relative_to(pages.ROOT))


@pytest.mark.parametrize("page", pages.PAGES, ids=name_of)
def test_what_a_page_shows_works(page: Path, walked: dict[Path, Done]) -> None:
    for asked, done in zip(steps_of(page), walked[page], strict=True):
        allowed = {0, NOT_TRUSTED} if "--strict" in asked else {0}
        assert done["code"] in allowed, f"{asked}\n{done['err']}"


def test_every_kind_of_block_is_known() -> None:
    for page in pages.PAGES:
        for fence in pages.fences(page):
            assert fence.language in LANGUAGES, f"{name_of(page)}: {fence.language!r}\n{fence.text}"


def test_commands_of_other_programs() -> None:
    """make: there is such a target; pip: constraints and extras exist."""
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for page in pages.PAGES:
        for fence in pages.fences(page):
            for command in fence.commands if fence.language == "sh" else ():
                program, *words = shlex.split(command)
                if program == "make":
                    dry = ["make", "--dry-run", *words]
                    subprocess.run(dry, cwd=pages.ROOT, check=True, capture_output=True)
                elif program == "pip":
                    check_pip(words, project)
                else:
                    assert program == "cleansteer", f"{name_of(page)}: cannot be run: {command}"


def check_pip(words: list[str], project: dict[str, Any]) -> None:
    assert words[:2] == ["install", "-c"], words
    constraints = (pages.ROOT / words[2]).read_text("utf-8")
    wanted = words[3:]
    if wanted[0] == "-e":
        extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", wanted[1])
        assert extras is not None, words
        known = project["optional-dependencies"]
        assert set((extras[1] or "").split(",")) - {""} <= set(known), words
    else:
        for name in wanted:
            assert f"\n{name}==" in constraints, words


@pytest.mark.parametrize("page", pages.PAGES, ids=name_of)
def test_commands_within_sentences_exist(page: Path) -> None:
    for code in pages.inline(page):
        words = code.split()
        if words[0] == "cleansteer" and len(words) > 1:
            check_named(words[1:], code)
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]) is not None, code


def check_named(words: list[str], code: str) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] != "COMMAND":
        assert words[0] in command.commands, code
        command, words = command.commands[words[0]], words[1:]
    if not hasattr(command, "commands"):
        known = {option for parameter in command.params for option in parameter.opts}
        asked = {word for word in words if word.startswith("--")}
        assert asked <= known | {"--help"}, code


@pytest.mark.parametrize("page", pages.PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """The documentation's own are checked as it is built."""
    for target in pages.links(page):
        path = target.partition("#")[0]
        made_while_building = path.startswith("commands/") or path == "learning_curve.svg"
        if path and not (page.parent.name == "docs" and made_while_building):
            assert os.path.exists(page.parent / path), target  # noqa: PTH110
