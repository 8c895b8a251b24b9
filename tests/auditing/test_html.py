"""The page of an audit carries what the audit found, and is written whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cleansteer as cs
import lessons
import pytest
import reported
from planted import TEXTS, plant

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def way(built: Path) -> list[Path]:
    folders = [built / "drawn" / f"checkpoint-{step}" for step in (1, 2)]
    for folder, values in zip(folders, ({5: 0.3}, {0: 0.2, 5: -0.4}), strict=True):
        plant(built, folder, "scale", scale=values)
    return folders


def test_the_page_carries_what_is_printed(
    built: Path, way: list[Path], audit: Command, tmp_path: Path
) -> None:
    texts = lessons.write(tmp_path / "few.jsonl", TEXTS)
    given = ("--data", texts, "--reference", texts)
    found = audit(way[1], *given, "--html", tmp_path / "one.html")
    page = reported.data_of(tmp_path / "one.html")["about"]
    told = [{k: v for k, v in each.items() if v is not None} for each in page["features"]]
    assert told == found["features"]
    assert [section["key"] for section in page["before"]] == ["effects"]
    assert [section["key"] for section in page["behind"]] == ["form", "meaning"]
    again = cs.audit(way[1], data=texts, reference=texts, progress=False)
    cs.write_audit(again, tmp_path / "again.html")
    assert reported.page_of(tmp_path / "again.html") == reported.page_of(tmp_path / "one.html")


def test_the_page_of_checkpoints(way: list[Path], audit: Command, tmp_path: Path) -> None:
    found = audit(*way, "--html", tmp_path / "moved.html")
    page = reported.data_of(tmp_path / "moved.html")["about"]
    assert (page["headline"], page["features"]) == (None, [])
    (section,) = page["before"]
    assert section["key"] == "movement"
    assert len(section["table"]["rows"]) == len(found["features"]) == 2
    (panel,) = section["panels"]
    assert panel["positions"] == [1, 2]
    courses = [[f["value"] for f in series["figures"]] for series in panel["series"]]
    assert courses == [each["parameters"]["scale"] for each in found["features"]]


def test_what_is_refused_writes_no_page(
    built: Path, way: list[Path], refused: Command, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    assert "does not apply to --lora" in refused("--lora", way[0], "--html", out)
    assert "is a directory" in refused(way[0], "--html", tmp_path)
    (tmp_path / "file").touch()
    assert "which is a file" in refused(way[0], "--html", tmp_path / "file" / "page.html")
    assert "expected --data as well" in refused(way[0], "--by", "residual", "--html", out)
    assert not out.exists()
