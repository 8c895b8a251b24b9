"""How long modules are, and what no page or module says."""

import re
from pathlib import Path

import pytest
import rooms

MOST_LINES = 350
EXCUSES = re.compile(
    r"\bwe had\b|\bthere was no (?:way|network|access)\b|\bwhile (?:this was|we were|writing)\b"
    r"|\bwithout a network at hand\b|\b(?:our|the authors') (?:machine|network|laptop|sandbox)\b",
    re.IGNORECASE,
)
"""Sentences about what the authors had. A page says what is measured, on what, and what is not."""
PAGES = sorted((rooms.ROOT / "docs").rglob("*.md"))


def test_no_module_is_long() -> None:
    lengths = {rooms.name_of(p): p.read_text("utf-8").count("\n") for p in rooms.modules()}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}


@pytest.mark.parametrize("path", [*rooms.modules(), *PAGES], ids=rooms.name_of)
def test_nothing_tells_what_the_authors_had(path: Path) -> None:
    text = re.sub(r"[\s#]+", " ", path.read_text("utf-8"))
    assert not EXCUSES.findall(text)
