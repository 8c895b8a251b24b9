"""The measuring protocol: what the code cites of it is there, and every column is defined."""

import re
from pathlib import Path
from typing import Any

import pages
import pandas as pd
import pytest
import rooms

PROTOCOL = pages.ROOT / "docs" / "protocol.md"
SECTIONS = (
    "Settings",
    "Contexts",
    "Feature statistics",
    "Steering and its labels",
    "Predictor sets",
    "Held-out screening",
    "Published figures",
)
TABLES = {
    "Feature statistics": ("features",),
    "Steering and its labels": ("labels", "halves", "random_directions", "fresh_labels"),
}
"""Sections that define columns, and the tables that have some or all of them."""
CITED = re.compile(r"docs/protocol\.md, (.{40})")
BARE = re.compile(r"(?<![\w/])[Pp]rotocol\.md")


def sections() -> dict[str, str]:
    """Sections by their titles."""
    _, *parts = re.split(r"^## (.+)$", PROTOCOL.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def titles() -> list[str]:
    """Of sections and their parts."""
    return re.findall(r"^##+ (.+)$", PROTOCOL.read_text("utf-8"), re.MULTILINE)


def columns(section: str) -> list[str]:
    """Names in the tables whose heading is ``column``."""
    tables = re.findall(r"^\| column \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section, re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def source(path: Path) -> str:
    """A module's text in one line, without the marks of comments."""
    return re.sub(r"\s+(?:# )?", " ", path.read_text("utf-8")) + " " * 40


def test_sections() -> None:
    assert tuple(sections()) == SECTIONS


@pytest.mark.parametrize("path", rooms.modules(), ids=rooms.name_of)
def test_what_is_cited_is_there(path: Path) -> None:
    text = source(path)
    assert BARE.findall(text) == [], "it is docs/protocol.md"
    known = tuple(titles())
    assert [rest for rest in CITED.findall(text) if not rest.startswith(known)] == []


@pytest.mark.parametrize("section", TABLES)
def test_columns_are_those_of_the_tables(section: str, walked: Any) -> None:
    written: set[str] = set()
    for table in TABLES[section]:
        found = [run / f"{table}.parquet" for run in walked.runs()]
        names = [set(pd.read_parquet(path).columns) for path in found if path.is_file()]
        assert names, table
        written |= set.union(*names)
    defined = columns(sections()[section])
    assert len(defined) == len(set(defined))
    assert written - {"feature"} == set(defined) - {"feature"}
