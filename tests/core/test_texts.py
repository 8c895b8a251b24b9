"""Texts of a corpus: the same texts from every kind of file, distinct, normalised, long enough."""

import json
import random
import string
from pathlib import Path

import minimal
import pandas as pd
import pytest
from cleansteer.core.errors import InputError
from cleansteer.core.settings import CorpusSetting, parse_setting
from cleansteer.core.texts import distinct_texts, read_texts


def corpus(**changes: object) -> CorpusSetting:
    return minimal.setting(**{"min_chars": 1} | changes).corpus


def sentences(n: int = 200, seed: int = 0) -> list[str]:
    """Texts of 1 to 12 words, some of them twice."""
    draw = random.Random(seed)
    words = [f"{letter}\u00e9\u4e16" for letter in string.ascii_lowercase]
    made = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(n)]
    return made + draw.choices(made, k=n // 4)


def read(folder: Path, name: str, **changes: object) -> list[str]:
    setting = minimal.setting(folder, **{"path": name, "min_chars": 1} | changes)
    return read_texts(setting, setting.corpus)


def write_jsonl(path: Path, texts: list[str], field: str = "text") -> None:
    rows = [json.dumps({field: text, "other": 3}) for text in texts]
    path.write_text("\n\n".join(rows) + "\n", "utf-8")


def test_first_occurrences_in_their_order() -> None:
    texts = sentences()
    expected = [text for i, text in enumerate(texts) if text not in texts[:i]]
    assert len(expected) < len(texts)
    assert distinct_texts(texts, corpus()) == expected
    assert distinct_texts(expected, corpus()) == expected


def test_white_space_does_not_matter() -> None:
    texts = sentences()
    draw = random.Random(1)
    spaced = [
        draw.choice(["", "\t ", "\n"]) + text.replace(" ", draw.choice(["  ", "\n", " \t\r\n"]))
        for text in texts
    ]
    assert distinct_texts(spaced, corpus()) == distinct_texts(texts, corpus())


@pytest.mark.parametrize("least", [1, 20, 33, 10_000])
def test_exactly_the_texts_that_are_long_enough_stay(least: int) -> None:
    every = distinct_texts(sentences(), corpus())
    assert distinct_texts(sentences(), corpus(min_chars=least)) == [
        text for text in every if len(text) >= least
    ]


@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_fewer_texts_are_the_first_of_them(most: int) -> None:
    every = distinct_texts(sentences(), corpus(min_chars=20))
    assert distinct_texts(sentences(), corpus(min_chars=20, n_texts=most)) == every[:most]


def test_length_counts_after_normalising() -> None:
    assert distinct_texts(["a  \n  b", "abcd"], corpus(min_chars=4)) == ["abcd"]


def test_every_kind_of_file_gives_the_same(tmp_path: Path) -> None:
    texts = sentences()
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n\n", "utf-8")
    write_jsonl(tmp_path / "a.jsonl", texts, "body")
    rows = [text for pair in zip(texts, [None] * len(texts), strict=True) for text in pair]
    write_jsonl(tmp_path / "nulls.jsonl", rows, "body")
    pd.DataFrame({"body": rows, "other": 3}).to_parquet(tmp_path / "a.parquet")
    expected = distinct_texts(texts, corpus())
    assert read(tmp_path, "a.txt") == expected
    assert read(tmp_path, "a.jsonl", field="body") == expected
    assert read(tmp_path, "nulls.jsonl", field="body") == expected
    assert read(tmp_path, "a.parquet", field="body") == expected


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_however_an_editor_saves_a_file(start: bytes, end: str, last: bool, tmp_path: Path) -> None:
    texts = sentences(20)
    lines = {"a.txt": texts, "a.jsonl": [json.dumps({"text": text}) for text in texts]}
    for name, written in lines.items():
        content = end.join(written) + end * last
        (tmp_path / name).write_bytes(start + content.encode())
        assert read(tmp_path, name) == distinct_texts(texts, corpus())


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00 good"])
def test_half_a_character_is_named(half: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": "bad ' + half + '"}\n', "utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl, line 2 holds half of a character: 'bad "):
        read(tmp_path, "a.jsonl")


def test_a_character_of_two_escapes_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good \\ud83d\\ude00"}', "utf-8")
    assert read(tmp_path, "a.jsonl") == ["good \U0001f600"]


def test_docstrings_with_half_a_character_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cleansteer.core.texts.iterate_docstrings", lambda *given: iter(["good", "bad \ud800"])
    )
    made = minimal.data() | {"corpus": {"packages": ["numpy"], "min_chars": 1}}
    setting = parse_setting(made, "minimal")
    assert read_texts(setting, setting.corpus) == ["good"]


def test_a_corpus_lies_relative_to_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.txt").write_text("one text\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path / "here", "a.txt") == ["one text"]
    assert read(tmp_path, str(tmp_path / "here" / "a.txt")) == ["one text"]


def test_reading_stops_when_there_are_enough(tmp_path: Path) -> None:
    texts = distinct_texts(sentences(), corpus())
    write_jsonl(tmp_path / "a.jsonl", texts[:5])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("no JSON\n")
    assert read(tmp_path, "a.jsonl", n_texts=5) == texts[:5]
    with pytest.raises(InputError, match="line 10"):
        read(tmp_path, "a.jsonl", n_texts=6)


@pytest.mark.parametrize(
    "line", ["{", "3", "[1]", '"text"', "null", "{}", '{"text": 3}', '{"text": []}']
)
def test_a_line_without_a_text_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + line + "\n", "utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: .*'text'"):
        read(tmp_path, "a.jsonl")


def test_wrong_parquet_columns_are_named(tmp_path: Path) -> None:
    pd.DataFrame({"body": ["a"], "number": [3]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no column 'text', only body, number"):
        read(tmp_path, "a.parquet")
    with pytest.raises(InputError, match=r"'number' holds int, expected text"):
        read(tmp_path, "a.parquet", field="number")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text\n", r"ending '\.csv'; expected one of \.txt, \.jsonl, \.parquet"),
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\n \n", "no text of at least 1 char"),
        ("a.txt", b"good\n\xff\n", "not UTF-8"),
        ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("a.parquet", b"PAR1 nonsense", "not Parquet"),
    ],
)
def test_unreadable_files_are_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_no_long_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path, "nowhere.txt")
    (tmp_path / "a.txt").write_text("short\n", "utf-8")
    with pytest.raises(InputError, match=r"no text of at least 6 .*min_chars"):
        read(tmp_path, "a.txt", min_chars=6)


def test_docstrings_know_three_splits() -> None:
    setting = minimal.setting(path=None, packages=["json"], split="all")
    with pytest.raises(InputError, match="'all' is not one of train, validation, test"):
        read_texts(setting, setting.corpus)


def test_a_hub_dataset_gives_what_a_file_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    texts = sentences()
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_dict({"body": [None, *texts, None]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = {"path": None, "dataset": "d", "config": "c", "split": "train[:2%]", "min_chars": 1}
    setting = minimal.setting(**source, field="body")
    assert read_texts(setting, setting.corpus) == distinct_texts(texts, corpus())
    assert asked == [("d", "c", "train[:2%]")]
    setting = minimal.setting(**source)
    with pytest.raises(InputError, match="no column 'text', only body"):
        read_texts(setting, setting.corpus)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("no route\nto the hub"),
            "'no/such' is not on this machine .*HF_HUB_OFFLINE",
        ),
        (ValueError("unknown split\ntrian"), "'no/such' .*cannot be loaded: unknown split"),
    ],
)
def test_a_dataset_that_cannot_be_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    import datasets

    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    setting = minimal.setting(path=None, dataset="no/such")
    with pytest.raises(InputError, match=message) as caught:
        read_texts(setting, setting.corpus)
    assert "\n" not in str(caught.value)
