"""Texts to train on: columns, held-out shares, fingerprints."""

import json
from pathlib import Path
from typing import Any

import lessons
import pytest
from cleansteer.adapters.examples import (
    COLUMNS,
    gather,
    prompt_of,
    read_examples,
    take_examples,
)
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
    """Rows that stand there twice are not on both sides, blanks around them aside."""
    rows = lessons.texts(10) + [{"text": f" {row['text']} \n"} for row in lessons.texts(6)]
    for seed in range(9):
        rest, out = gather(rows).held_out(0.5, seed)
        assert len(rest.rows) + len(out.rows) == 16
        assert 6 <= len(out.rows) <= 8
        assert out.shared_with(rest) == out.prompts_shared_with(rest) == 0
    assert gather(rows).shared_with(gather(lessons.texts(6))) == 12
    assert gather(rows).n_prompts == 10


def asked(n_prompts: int, n_each: int) -> dict[str, Any]:
    """Rows of few prompts, each with several completions."""
    prompts = [f"w{i} w{i + 1}" for i in range(n_prompts)]
    each = [(prompt, j) for j in range(n_each) for prompt in prompts]
    user = {prompt: [{"role": "user", "content": prompt + " " * j}] for prompt, j in each}
    said = [[{"role": "assistant", "content": f"w{j}"}] for j in range(n_each + 1)]
    return {
        "dpo": [
            {"prompt": p + " " * j, "chosen": f" w{j}", "rejected": f" w{j + 1}"} for p, j in each
        ],
        "sft": [{"prompt": "\t" * j + p, "completion": f" w{j}"} for p, j in each],
        "chat": [{"messages": user[p] + said[j]} for p, j in each],
        "chat dpo": [
            {"prompt": user[p], "chosen": said[j], "rejected": said[j + 1]} for p, j in each
        ],
    }


@pytest.mark.parametrize("kind", ["dpo", "sft", "chat", "chat dpo"])
def test_all_rows_of_a_prompt_are_on_one_side(kind: str) -> None:
    rows = asked(8, 3)[kind]
    whole = gather(rows)
    assert whole.n_prompts == 8
    seen = set()
    for seed in range(12):
        rest, out = whole.held_out(0.25, seed)
        assert len(out.rows) == 6
        assert sorted([*rest.rows, *out.rows], key=str) == sorted(rows, key=str)
        assert not {prompt_of(row) for row in rest.rows} & {prompt_of(row) for row in out.rows}
        assert (rest.n_prompts, out.n_prompts) == (6, 2)
        seen |= {prompt_of(row) for row in out.rows}
    assert len(seen) == 8, "every prompt can be held out"
    # Of all that is held out, but not with the same completions.
    ours = gather([row for i, row in enumerate(rows) if i % 3])
    assert gather(rows[:1]).prompts_shared_with(ours) == 1
    assert gather(rows[:1]).shared_with(ours) == 0


def test_a_share_is_not_filled_with_one_large_prompt() -> None:
    """What does not fit is passed over; where nothing fits, it is the smallest."""
    rows = [{"prompt": "w1", "completion": f" w{i}"} for i in range(2, 20)]
    others = [{"prompt": f"w{i}", "completion": " w1"} for i in (30, 31)]
    for seed in range(5):
        _, out = gather(rows + others).held_out(0.1, seed)
        assert sorted(row["prompt"] for row in out.rows) == ["w30", "w31"]
        _, out = gather(rows + others * 3).held_out(0.01, seed)
        assert [row["prompt"] for row in out.rows] in (["w30"] * 3, ["w31"] * 3)
    with pytest.raises(InputError, match=r"18 examples leave none .*, found 1;"):
        gather(rows).held_out(0.1, 0)


def test_a_prompt_of_a_conversation_is_what_comes_before_the_first_answer() -> None:
    user, said = {"role": "user", "content": "w1 "}, {"role": "assistant", "content": "w2"}
    assert prompt_of({"messages": [user, said, user, said]}) == (("user", "w1"),)
    assert prompt_of({"messages": [user]}) == (("user", "w1"),)
    assert prompt_of({"messages": [said, user]}) == ()
    assert prompt_of({"prompt": [user], "completion": [said]}) == (("user", "w1"),)


USER, SAID = {"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}


@pytest.mark.parametrize(
    ("objective", "row"),
    [
        ("sft", {"messages": [USER, SAID]}),
        ("sft", {"prompt": [USER], "completion": [SAID]}),
        ("dpo", {"prompt": [USER], "chosen": [SAID], "rejected": [SAID | {"content": "w3"}]}),
    ],
)
def test_messages_are_read_from_files_and_memory(objective: str, row: Any, tmp_path: Path) -> None:
    column = next(iter(row))
    more = row | {"id": 7, column: [message | {"name": None} for message in row[column]]}
    found = read_examples(lessons.write(tmp_path / "data.jsonl", [more, row]), objective)
    assert found.rows == [row, row]
    assert found.chat
    assert take_examples([more, row], "data", objective) == found
    assert not gather(lessons.texts(2)).chat


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"messages": []}, "'messages' is []; expected a list of messages"),
        ({"messages": "w1"}, "'messages' is 'w1'; expected a list of messages"),
        ({"messages": ["w1"]}, "message 1 is 'w1'; expected {'role': ..., 'content': ...}"),
        ({"messages": [USER, {"role": "user"}]}, "message 2 is {'role': 'user'}; expected"),
        ({"messages": [USER | {"content": None}]}, "message 1 is {"),
        ({"messages": [USER | {"content": [{"type": "text"}]}]}, "message 1 is {"),
        ({"messages": [USER | {"tool_calls": [1]}]}, "and nothing else"),
        ({"messages": [USER | {"content": "a cut emoji \ud83d"}]}, "message 1 is {"),
        ({"prompt": [USER], "completion": "w2"}, "'completion' is 'w2'; expected a list of"),
        ({"prompt": "w1", "completion": [SAID]}, "'completion' is [{"),
        ({"text": [USER]}, "'text' is [{"),
    ],
)
def test_what_are_no_messages_is_refused(row: Any, part: str) -> None:
    with pytest.raises(InputError) as error:
        take_examples([row], "data", "sft")
    assert str(error.value).startswith("data[0]: ")
    assert part in str(error.value)
    assert "\n" not in str(error.value)
