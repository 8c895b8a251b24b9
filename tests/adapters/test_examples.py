"""Texts to train on: columns, held-out shares, fingerprints."""

import json
from pathlib import Path

import lessons
import pytest
import tiny
from cleansteer.adapters.examples import COLUMNS, gather, prepend_bos, read_examples
from cleansteer.core.errors import InputError


@pytest.mark.parametrize(
    ("objective", "rows"),
    [
        ("sft", lessons.texts(5)),
        ("sft", lessons.completions(5)),
        ("dpo", lessons.preferences(5)),
    ],
)
def test_rows_are_read_as_they_were_written(
    objective: str, rows: lessons.Rows, tmp_path: Path
) -> None:
    more = [row | {"id": i, "source": None} for i, row in enumerate(rows)]
    found = read_examples(lessons.write(tmp_path / "data.jsonl", more), objective)
    assert found.rows == rows
    assert found.fingerprint == gather(rows).fingerprint
    assert tuple(rows[0]) in COLUMNS[objective]


def test_text_is_taken_where_a_row_has_all_columns_of_sft(tmp_path: Path) -> None:
    row = {"prompt": "w1", "completion": " w2", "text": "w3"}
    found = read_examples(lessons.write(tmp_path / "data.jsonl", [row]), "sft")
    assert found.rows == [{"text": "w3"}]


def test_a_text_may_hold_any_character(tmp_path: Path) -> None:
    """Line breaks of Unicode, that JSON need not escape, end no line; blank lines are none."""
    texts = ["a\u2028b", "a\u0085b", "a\x7fb", "é\n\r\tß", "\U0001f600"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path = tmp_path / "data.jsonl"
    path.write_bytes("\r\n\n".join(lines).encode())
    assert [row["text"] for row in read_examples(path, "sft").rows] == texts


@pytest.mark.parametrize(("share", "n_out"), [(0.001, 1), (0.1, 2), (0.25, 5), (0.5, 10)])
def test_held_out_is_a_seeded_partition(share: float, n_out: int) -> None:
    rows = lessons.texts(20)
    whole = gather(rows)
    kept, held = whole.held_out(share, 3)
    assert len(held.rows) == n_out
    assert sorted(kept.rows + held.rows, key=str) == sorted(rows, key=str)
    for part in (kept, held):
        assert part.rows == [row for row in rows if row in part.rows], "in the order of the file"
        assert part.fingerprint == gather(part.rows).fingerprint
    assert whole.held_out(share, 3) == (kept, held)
    others = [whole.held_out(share, seed)[1].rows for seed in range(20)]
    assert any(other != held.rows for other in others)


def test_every_row_can_be_held_out() -> None:
    whole = gather(lessons.texts(8))
    held = [row["text"] for seed in range(60) for row in whole.held_out(0.1, seed)[1].rows]
    assert set(held) == {row["text"] for row in whole.rows}


def test_one_row_cannot_be_shared() -> None:
    with pytest.raises(InputError, match="1 examples leave none to train on where 1"):
        gather(lessons.texts(1)).held_out(0.5, 0)


def test_the_fingerprint_depends_on_rows_and_order_alone(tmp_path: Path) -> None:
    rows = lessons.preferences(4)
    known = gather(rows).fingerprint
    turned = [dict(reversed(row.items())) for row in rows]
    assert gather(turned).fingerprint == known
    path = tmp_path / "elsewhere.jsonl"
    path.write_text("\n\n".join(json.dumps(row, indent=None) for row in turned), "utf-8")
    assert read_examples(path, "dpo").fingerprint == known
    different = [rows[::-1], rows[:-1], [*rows, rows[0]], [rows[0] | {"chosen": " w1"}, *rows[1:]]]
    moved = [row | {"prompt": row["prompt"] + row["chosen"], "chosen": ""} for row in rows]
    found = [gather(other).fingerprint for other in (*different, moved)]
    assert len({known, *found}) == 6
    assert len(known) == 16
    assert int(known, 16) >= 0


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_however_an_editor_saves_a_file(
    start: bytes, end: bytes, last: bool, tmp_path: Path
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(start + end.join([b'{"text": "w1"}', b'{"text": "w2"}']) + end * last)
    assert read_examples(path, "sft") == gather([{"text": "w1"}, {"text": "w2"}])


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"text": "a cut emoji \\ud83d"}', "line 2: 'text' is 'a cut emoji"),
        ("[" * 200_000, "line 2: '[[["),
    ],
    ids=["half a character", "deep"],
)
def test_what_json_allows_and_no_text_is(line: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "w1"}\n' + line, "utf-8")
    with pytest.raises(InputError) as error:
        read_examples(path, "sft")
    assert part in str(error.value)


def test_what_is_scored_is_not_trained_on() -> None:
    """Rows that stand there twice are not on both sides."""
    rows = lessons.texts(10) + lessons.texts(6)
    for seed in range(5):
        rest, out = gather(rows).held_out(0.5, seed)
        assert len(rest.rows) == 8
        assert 0 < len(out.rows) < 8
        assert out.shared_with(rest) == 0
    assert gather(rows).shared_with(gather(lessons.texts(6))) == 12
    with pytest.raises(InputError, match="all 1 examples that are held out are among the others"):
        gather(lessons.texts(1) * 5).held_out(0.1, 0)


@pytest.mark.parametrize("rows", [lessons.texts(3), lessons.completions(3), lessons.preferences(3)])
def test_what_comes_first_begins_with_bos_once(rows: lessons.Rows) -> None:
    first, *others = rows[0]
    found = prepend_bos(rows, tiny.tokenizer())
    assert [row[first] for row in found] == ["<eos>" + row[first] for row in rows]
    assert [[row[name] for name in others] for row in found] == [
        [row[name] for name in others] for row in rows
    ]
    assert prepend_bos(found, tiny.tokenizer()) == found
