"""Descriptions of features from files: what is wrong is skipped and counted, or refused in one line."""

import gzip
import json
from pathlib import Path

import pytest
from cleansteer.core.errors import InputError
from cleansteer.core.progress import Reporter
from cleansteer.core.settings import SaeSetting
from cleansteer.naming.files import read_export, read_file
from cleansteer.naming.source import Described, read_descriptions

N = 10
SAE = SaeSetting(path="somewhere")
GPT2 = SaeSetting(release="gpt2-small-res-jb", id="blocks.8.hook_resid_pre")
GOOD = "0,zero\n2,two\n3,three\n4,four\n"


def read(given: Path, sae: SaeSetting = SAE) -> dict[int, str]:
    return read_descriptions(given, Described(sae, N, "f"), [], Reporter(quiet=True))


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    expected = {0: "dates, mostly", 9: 'quotes " and <b>tags</b>', 3: "two lines"}
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
    assert read(tmp_path / "a.csv") == expected
    assert read(tmp_path / "b.jsonl") == expected


def test_descriptions_print_nothing_but_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"index": 1, "description": "\x1b[31mred\x07\r\nalert"}), "utf-8"
    )
    assert read(tmp_path / "a.jsonl") == {1: "[31mred alert"}


BAD_ROWS = {
    "a word": ("a.csv", "one,x", "'one' is no index"),
    "negative": ("a.csv", "-1,x", "'-1' is no index"),
    "out of range": ("a.csv", "10,x", "feature 10 is out of range, the SAE has 0 to 9"),
    "far out of range": ("a.csv", "9" * 5000 + ",x", "is out of range"),
    "twice": ("a.csv", "2,y", "feature 2 stands there twice"),
    "row cut short": ("a.csv", "1", "description None is no text"),
    "blank": ("a.csv", "1,   ", "description '   ' is no text"),
    "a fraction": ("a.jsonl", '{"index": 1.5, "description": "x"}', "1.5 is no index"),
    "true": ("a.jsonl", '{"index": true, "description": "x"}', "True is no index"),
    "a number": ("a.jsonl", '{"index": 1, "description": 5}', "description 5 is no text"),
    "not JSON": ("a.jsonl", '{"index": 1', "no JSON object"),
    "nested beyond measure": ("a.jsonl", "[" * 100_000, "no JSON object"),
    "a list": ("a.jsonl", "[1]", "no JSON object"),
    "no index": ("a.jsonl", '{"description": "x"}', "None is no index"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_skipped_and_counted(case: str, tmp_path: Path) -> None:
    name, row, problem = BAD_ROWS[case]
    rows = [*GOOD.split(), row]
    if name.endswith("csv"):
        text = "\n".join(["index,description", *rows])
    else:
        pairs = [line.split(",") for line in GOOD.split()]
        good = [json.dumps({"index": int(i), "description": d}) for i, d in pairs]
        text = "\n".join([*good, row])
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.warns(UserWarning, match="1 of 5 rows skipped, the first: line") as told:
        found = read(tmp_path / name)
    assert found == {0: "zero", 2: "two", 3: "three", 4: "four"}
    assert problem in str(told[0].message)


def test_most_rows_bad_is_another_saes_file(tmp_path: Path) -> None:
    rows = [f"{index},feature {index}" for index in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["index,description", *rows]), "utf-8")
    with pytest.raises(InputError, match=r"20 of 30 rows describe no feature of this SAE.*line 12"):
        read(tmp_path / "a.csv")


BAD_FILES = {
    "other ending": ("a.txt", "index,description\n1,x\n", ("'.txt'", ".csv", ".jsonl")),
    "no index": ("a.csv", "id,description\n1,x\n", ("no 'index'", "id, description")),
    "no description": ("a.csv", "index,text\n1,x\n", ("no 'description'",)),
    "no heading": ("a.csv", "", ("no 'index' among nothing",)),
    "nothing but a heading": ("a.csv", "index,description\n", ("describes no feature",)),
    "nothing of use": ("a.jsonl", "x\ny\n", ("describes no feature (line 1: no JSON object)",)),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_what_is_wrong_with_a_file_is_told_in_a_line(case: str, tmp_path: Path) -> None:
    name, text, parts = BAD_FILES[case]
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InputError) as error:
        read(tmp_path / name)
    for part in ("--descriptions", *parts):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_file(tmp_path / "a.csv", N)
    (tmp_path / "a.csv").write_bytes(b"index,description\n1,\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_file(tmp_path / "a.csv", N)


def export(folder: Path, *batches: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True)
    for number, batch in enumerate(batches):
        with gzip.open(folder / f"batch-{number}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in batch)
    return folder


def row(index: object, description: str, layer: str = "8-res-jb") -> dict[str, object]:
    """A row as Neuronpedia's exports have them, embedding and all."""
    return {
        "modelId": "gpt2-small",
        "layer": layer,
        "index": index,
        "description": description,
        "typeName": "oai_token-act-pair",
        "explanationModelName": "gpt-4o-mini",
        "embedding": [0.1] * 256,
    }


@pytest.mark.parametrize("below", ["", "explanations", "explanations-gpt-4o-mini"])
def test_an_export_of_neuronpedia(below: str, tmp_path: Path) -> None:
    export(
        tmp_path / "d" / below if below else tmp_path / "d",
        [row("0", "first"), row("1", "dates")],
        [row("1", "another of dates"), row("7", "seven")],
    )
    assert read(tmp_path / "d", GPT2) == {0: "first", 1: "dates", 7: "seven"}


def test_an_export_of_another_sae_is_refused(tmp_path: Path) -> None:
    export(tmp_path / "d", [row("0", "first", layer="6-res-jb")])
    with pytest.raises(
        InputError, match="describes gpt2-small/6-res-jb, the SAE is gpt2-small/8-res"
    ):
        read(tmp_path / "d", GPT2)
    assert read(tmp_path / "d") == {0: "first"}  # of an SAE that the list does not know


def test_a_directory_without_or_with_a_broken_export(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no batch-\*\.jsonl\.gz"):
        read_export(tmp_path, N, None)
    folder = export(tmp_path / "d", [row(str(i % N), "text" * 9) for i in range(300)])
    batch = folder / "batch-0.jsonl.gz"
    whole = batch.read_bytes()
    for broken in (whole[:-20], whole[:30] + bytes(20) + whole[50:], b"no gzip"):
        batch.write_bytes(broken)
        with pytest.raises(InputError, match="no gzip of JSON lines"):
            read_export(folder, N, None)


def test_a_line_without_end_is_not_read_whole(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "batch-0.jsonl.gz", "wt") as file:
        file.write("x" * (3 << 20))
    with pytest.raises(InputError, match="longer than 1048576 characters"):
        read_export(tmp_path, N, None)
