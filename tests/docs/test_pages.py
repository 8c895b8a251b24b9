"""The documentation as it is built, and whether it tells of all that is there."""

import html
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import cleansteer
import pages
import pandas as pd
import pytest
import typer
from cleansteer.adapters.components import component_class, names
from cleansteer.cli.app import app
from cleansteer.core.settings import field_texts

TABLES = {
    "sample": ("sample",),
    "doses": ("doses",),
    "dose_forecast": ("dose_forecast",),
    "response_doses": ("response_doses",),
    "response_noise": ("response_noise",),
    "ranking": ("ranking",),
    "downstream": ("downstream",),
    "examples": ("examples",),
    "tokens": ("tokens",),
    "final_activations": ("final_activations",),
}
"""Sections of columns.toml, and the tables that have their columns; test_protocol.py has the others."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    program = Path(sys.executable).with_name("mkdocs")
    done = subprocess.run(
        [str(program), "build", "--strict", "--site-dir", str(folder)],
        cwd=pages.ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(pages.ROOT.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def text_of(site: Path, name: str) -> str:
    page = (site / name).read_text("utf-8")
    (article,) = re.findall(r"<article.*?</article>", page, re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", article))


def commands(group: Any, above: str = "") -> dict[str, Any]:
    found = {}
    for name, command in group.commands.items():
        deeper = hasattr(command, "commands")
        found |= commands(command, f"{above}{name}-") if deeper else {f"{above}{name}": command}
    return found


def test_every_command_has_a_page_with_all_its_options(site: Path) -> None:
    for name, command in commands(typer.main.get_command(app)).items():
        text = text_of(site, f"commands/{name}.html")
        for parameter in (p for p in command.params if not getattr(p, "hidden", False)):
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in text, f"{name} {option}"


def test_every_key_and_component_is_told(site: Path) -> None:
    keys = text_of(site, "own-model.html")
    assert all(key in keys for key in field_texts())
    adapters = text_of(site, "adapters.html")
    for name in names():
        assert adapters.count(name) > 1
        assert all(option in adapters for option in component_class(name).options)


def test_no_formula_is_left_over(site: Path) -> None:
    written = (site / "protocol.html").read_text("utf-8")
    assert written.count("<math") > 100
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert "arithmatex" not in text, page
        assert "<!-- columns" not in text, page
        assert r"\text" not in text, page


def test_pages_ask_no_other_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:[^"]+)', page.read_text("utf-8")
        )
        assert not loaded, f"{page}: {loaded}"


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Those among the documentation's own pages, and to their sections, are checked as it is built."""
    for target in pages.links(page):
        path = target.partition("#")[0]
        made_while_building = path.startswith("commands/") or path == "learning_curve.svg"
        if path and not (page.parent.name == "docs" and made_while_building):
            assert (page.parent / path).exists(), target


def test_python_names_have_their_docstrings(site: Path) -> None:
    text = (site / "api.html").read_text("utf-8")
    named = re.findall(r"^::: ([\w.]+)$", (pages.ROOT / "docs" / "api.md").read_text("utf-8"), re.M)
    assert {f"cleansteer.{name}" for name in cleansteer.__all__} - {"cleansteer.__version__"} <= {
        *named
    }
    for name in named:
        assert f'id="{name}"' in text, name
    assert not re.search(r":(?:func|class|meth|attr|mod|data):", text)


def test_columns_are_those_of_the_tables(walked: Any) -> None:
    path = pages.ROOT / "docs" / "generate" / "columns.toml"
    told = tomllib.loads(path.read_text("utf-8"))
    assert told.keys() == TABLES.keys()
    for section, tables in TABLES.items():
        written: set[str] = set()
        for table in tables:
            found = [run / f"{table}.parquet" for run in walked.runs()]
            columns = [set(pd.read_parquet(path).columns) for path in found if path.is_file()]
            assert columns, table
            written |= set.union(*columns)
        assert written == set(told[section]), section


def test_files_are_those_that_are_told(walked: Any) -> None:
    text = (pages.ROOT / "docs" / "files.md").read_text("utf-8")
    for folder in (*walked.runs(), walked.folder / "adapters" / "adapter"):
        for path in folder.iterdir():
            assert f"`{path.name}{'/' * path.is_dir()}`" in text, path
