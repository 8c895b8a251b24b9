"""What README and documentation show is done, block by block (see conftest.py)."""

import importlib.util
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pages
import pytest
import typer
from cleansteer.cli.app import app

LANGUAGES = {"sh", "python", "toml", "text", "bibtex", "json"}
"""``sh`` and ``python`` are run; ``toml`` named my-setting is what commands read; ``text`` is output."""
NOT_TRUSTED = 3
every_page = pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)


@every_page
def test_what_a_page_shows_works(page: Path, walked: Any) -> None:
    for asked, done in zip(pages.steps_of(page), walked.results[page], strict=True):
        allowed = {0, NOT_TRUSTED} if "--strict" in asked else {0}
        assert done["code"] in allowed, f"{asked}\n{done['err']}"


def test_there_is_something_to_show() -> None:
    shown = {step[0] for page in pages.PAGES for step in pages.steps_of(page) if step[0].isalpha()}
    assert {"screen", "evaluate", "validate", "train", "export"} <= shown


@every_page
def test_every_kind_of_block_is_known(page: Path) -> None:
    """A command in a block of another kind would not be run."""
    for fence in pages.fences(page):
        assert fence.language in LANGUAGES, f"{fence.language!r}\n{fence.text}"
        if fence.language == "text":
            assert not re.search(r"^(\$ |cleansteer |make |pip )", fence.text, re.MULTILINE)


@every_page
def test_commands_of_other_programs(page: Path) -> None:
    for fence in pages.fences(page):
        for command in fence.commands if fence.language == "sh" else ():
            program, *words = shlex.split(command)
            if program == "make":
                dry = ["make", "--dry-run", *words]
                subprocess.run(dry, cwd=pages.ROOT, check=True, capture_output=True)
            elif program == "pip":
                check_pip(words)
            else:
                assert program == "cleansteer", f"cannot be run: {command}"


def check_pip(words: list[str]) -> None:
    """Constraints, packages and extras exist."""
    assert words[:2] == ["install", "-c"], words
    constraints = (pages.ROOT / words[2]).read_text("utf-8")
    if words[3] != "-e":
        assert all(f"\n{name}==" in constraints for name in words[3:]), words
        return
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", words[4])
    assert extras is not None, words
    assert set((extras[1] or "").split(",")) - {""} <= set(project["optional-dependencies"]), words


@every_page
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
