"""Files are written whole or not at all, and read back as they were or not at all."""

import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cleansteer.core.errors import InputError
from cleansteer.core.tables import (
    read_json,
    read_table,
    write_atomically,
    write_json,
    write_table,
    write_text,
)

DATA = {"text": "é 世", "nested": {"list": [1, 2.5, None, True]}, "number": -3}


def table() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "feature": np.arange(50),
            "value": np.where(np.arange(50) == 7, np.nan, generator.normal(size=50)),
            "single": generator.normal(size=50).astype(np.float32),
            "yes": generator.random(50) < 0.5,
            "text": [f"t{i} é" for i in range(50)],
            "tokens": [[f"a{i}", ""] for i in range(50)],
        }
    )


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old content"])
def test_a_writer_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, before: str | None, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the new con")
        raise error

    with pytest.raises(error):
        write_atomically(path, fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == (
        [] if before is None else [("file", before)]
    )


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        assert temporary.parent == path.parent, "a rename within one file system"
        temporary.write_text("new")
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    previous = os.umask(mask)
    try:
        write_text(tmp_path / "ours", "text")
        (tmp_path / "plain").write_text("text")
        assert os.umask(mask) == mask, "the mask itself is left alone"
    finally:
        os.umask(previous)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")}
    assert modes == {0o666 & ~mask}


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", table())
    back = read_table(tmp_path / "t.parquet", ("feature", "tokens"))
    assert [list(tokens) for tokens in back["tokens"]] == list(table()["tokens"])
    pd.testing.assert_frame_equal(
        back.drop(columns="tokens"), table().drop(columns="tokens"), check_exact=True
    )


def test_a_shuffled_index_is_not_saved(tmp_path: Path) -> None:
    shuffled = table().sample(frac=1, random_state=0)
    write_table(tmp_path / "t.parquet", shuffled)
    back = read_table(tmp_path / "t.parquet")
    assert list(back["feature"]) == list(shuffled["feature"])
    assert list(back.index) == list(range(50))
    assert list(back.columns) == list(table().columns)


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "d.json", DATA)
    assert read_json(tmp_path / "d.json") == DATA
    assert (tmp_path / "d.json").read_text("utf-8").endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_json_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "d.json"
    write_json(path, DATA)
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"value": value})
    assert read_json(path) == DATA
    assert list(tmp_path.iterdir()) == [path]


def test_a_cut_table_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, table())
    whole = path.read_bytes()
    for end in {0, 1, 4, 8, *range(12, len(whole), len(whole) // 25), len(whole) - 1}:
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"t\.parquet is not readable Parquet"):
            read_table(path)


def test_a_cut_json_file_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write_json(path, DATA)
    whole = path.read_bytes()
    for end in range(len(whole.rstrip())):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"d\.json is not JSON"):
            read_json(path)


@pytest.mark.parametrize("content", ["[1]", "3", "null", '"text"'])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(InputError, match="holds no JSON object"):
        read_json(tmp_path / "d.json")


def test_missing_columns_are_named_beside_those_there(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", table()[["feature", "value"]])
    with pytest.raises(InputError, match=r"lacks the columns yes, rank; it holds feature, value"):
        read_table(tmp_path / "t.parquet", ("feature", "yes", "rank"))


@pytest.mark.parametrize("read", [read_table, read_json])
def test_missing_files_and_folders_are_refused(tmp_path: Path, read: object) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="does not exist; run the command that writes it"):
            read(path)  # type: ignore[operator]
