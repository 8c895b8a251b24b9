"""Descriptions of features from a file."""

from pathlib import Path

import pytest
from cleansteer.core.errors import InputError
from cleansteer.report.descriptions import read_descriptions

N = 10


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    expected = {0: "dates, mostly", 9: 'quotes " and <b>tags</b>', 3: "two\nlines"}
    (tmp_path / "a.csv").write_text(
        'index,description\n0,"dates, mostly"\n9,"quotes "" and <b>tags</b>"\n3,"two\nlines"\n',
        "utf-8",
    )
    (tmp_path / "b.jsonl").write_text(
        '{"index": 0, "description": "dates, mostly"}\n\n'
        '{"feature": "9", "label": "quotes \\" and <b>tags</b>", "score": 1}\n'
        '{"index": 3, "description": "two\\nlines"}\n',
        "utf-8",
    )
    assert read_descriptions(tmp_path / "a.csv", N) == expected
    assert read_descriptions(tmp_path / "b.jsonl", N) == expected


BAD = {
    "other ending": ("a.txt", "index,description\n1,x\n", ("'.txt'", ".csv", ".jsonl")),
    "no index": ("a.csv", "id,description\n1,x\n", ("no 'index'", "id, description")),
    "no description": ("a.csv", "index,text\n1,x\n", ("no 'description'",)),
    "no heading": ("a.csv", "", ("no 'index' among nothing",)),
    "nothing but a heading": ("a.csv", "index,description\n", ("describes no feature",)),
    "a word": ("a.csv", "index,description\none,x\n", ("line 2", "'one' is no index")),
    "negative": ("a.csv", "index,description\n-1,x\n", ("'-1' is no index",)),
    "a fraction": ("a.jsonl", '{"index": 1.5, "description": "x"}', ("1.5 is no index",)),
    "true": ("a.jsonl", '{"index": true, "description": "x"}', ("True is no index",)),
    "out of range": (
        "a.csv",
        "index,description\n10,x\n",
        ("feature 10 is out of range", "0 to 9"),
    ),
    "twice": ("a.csv", "index,description\n1,x\n1,y\n", ("line 3", "feature 1 stands there twice")),
    "row cut short": ("a.csv", "index,description\n1\n", ("line 2", "None is no text")),
    "a number": ("a.jsonl", '{"index": 1, "description": 5}', ("description 5 is no text",)),
    "not JSON": ("a.jsonl", '{"index": 1', ("line 1", "not JSON")),
    "a list": ("a.jsonl", "[1]", ("line 1", "no JSON object")),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_in_a_line(case: str, tmp_path: Path) -> None:
    name, text, parts = BAD[case]
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InputError) as error:
        read_descriptions(tmp_path / name, N)
    for part in ("--descriptions", *parts):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_descriptions(tmp_path / "a.csv", N)
    (tmp_path / "a.csv").write_bytes(b"index,description\n1,\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_descriptions(tmp_path / "a.csv", N)
