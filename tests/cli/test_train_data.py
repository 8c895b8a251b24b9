"""Training through the command line: conversations, prompts on both sides, and what is cut off."""

import shutil
from pathlib import Path
from typing import Any

import beginnings
import lessons
import pytest
import teaching
import torch
import world
from peft import PeftModel
from transformers import AutoModelForCausalLM

FEATURES = ("--features", "0,3,5,8,13")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teaching.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def talking(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same world with a tokenizer that puts BOS, as its chat template does."""
    folder = shutil.copytree(built, tmp_path_factory.mktemp("talking") / "world")
    beginnings.tokenizer("puts BOS").save_pretrained(folder / "model")
    return folder


def chats(count: int, seed: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"].strip()},
            ]
        }
        for row in lessons.completions(count, seed)
    ]


def answers_loss(model: Any, rows: list[dict[str, Any]]) -> float:
    """Of the assistant's turns, a token."""
    total, n_tokens = 0.0, 0
    for row in rows:
        user, said = (message["content"] for message in row["messages"])
        front = f"<bos> <user> {user} <end> <assistant>"
        ids = torch.tensor([beginnings.ids(f"{front} {said} <end>")])
        labels = ids.clone()
        labels[:, : len(front.split())] = -100
        n = int((labels != -100).sum())
        with torch.no_grad():
            total += float(model(ids, labels=labels).loss) * n
        n_tokens += n
    return total / n_tokens


def test_conversations(talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their losses are those of an untouched model on what the template makes of them; they are drift's
    reference too.
    """
    data = lessons.write(tmp_path / "chats.jsonl", chats(12, 0))
    held = lessons.write(tmp_path / "held.jsonl", chats(5, 9))
    more = ("--data", data, "--eval-data", held, "--drift", 0.01, "--reference", held)
    options = (*teaching.SHORT, *FEATURES, "--component", "bias", *more)
    assert teaching.train(monkeypatch, talking, tmp_path / "out", *options) == 0
    record = teaching.record_of(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(talking / "model").eval()
    before = answers_loss(model, chats(5, 9))
    after = answers_loss(PeftModel.from_pretrained(model, tmp_path / "out").eval(), chats(5, 9))
    assert record["metrics"]["before"] == pytest.approx(before, rel=1e-5)
    assert record["metrics"]["after"] == pytest.approx(after, rel=1e-5)
    assert record["data"]["chat"] is True
    assert "chat template" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_pairs_of_conversations(
    talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in lessons.preferences(12)
    ]
    data = ("--data", lessons.write(tmp_path / "pairs.jsonl", rows), "--objective", "dpo")
    assert (
        teaching.train(monkeypatch, talking, tmp_path / "out", *teaching.SHORT, *FEATURES, *data)
        == 0
    )
    before = teaching.record_of(tmp_path / "out")["metrics"]["before"]
    assert before == pytest.approx(torch.log(torch.tensor(2.0)).item())


@pytest.mark.parametrize("more", [(), ("--reference",)])
def test_conversations_need_a_template(
    more: tuple[object, ...],
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = lessons.write(tmp_path / "chats.jsonl", chats(12, 0))
    given = ("--drift", 0.1, "--reference", data) if more else ("--data", data)
    capfd.readouterr()
    assert teaching.train(monkeypatch, built, tmp_path / "out", *teaching.SHORT, *given) == 2
    assert "has no chat template" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_text_and_messages_do_not_go_together(
    talking: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    row = chats(1, 0)[0]["messages"]
    held = lessons.write(tmp_path / "held.jsonl", [{"prompt": row[:1], "completion": row[1:]}])
    given = ("--data", talking / "pairs.jsonl", "--eval-data", held)
    capfd.readouterr()
    assert teaching.train(monkeypatch, talking, tmp_path / "out", *given) == 2
    world.one_line(capfd, "holds text, the other messages")


@pytest.mark.parametrize("max_length", [1024, 6])
def test_what_is_cut_off_is_told_and_recorded(
    max_length: int,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With the length that was used: the model takes 64 tokens."""
    texts = [{"text": " ".join(["w3"] * n)} for n in (2, 4, 90)]
    data = lessons.write(tmp_path / "data.jsonl", texts)
    given = ("--data", data, "--eval-data", built / "held.jsonl", "--max-length", max_length)
    capfd.readouterr()
    assert teaching.train(monkeypatch, built, tmp_path / "out", *teaching.SHORT, *given) == 0
    record = teaching.record_of(tmp_path / "out")
    used = min(max_length, 64)
    assert record["options"]["max_length"] == used
    lengths = [4, 6, 92]  # with BOS and EOS
    lost = sum(max(0, length - used) for length in lengths)
    expected = {"n_used": 3, "n_cut": 1, "n_tokens": 102, "n_tokens_lost": lost}
    assert {name: record["data"][name] for name in expected} == expected
    told = (
        f"1 of 3 training examples are longer than {used} tokens: {lost} of 102 tokens are not used"
    )
    assert told in " ".join(capfd.readouterr().err.split())
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"{lost} of 102 tokens not used, more than {used} an example" in card


def test_prompts_are_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of data that are split here none is on both sides; in a file of others it is counted."""
    rows = [
        row | {"chosen": f"{row['chosen']} w{i}", "prompt": row["prompt"] + " " * i}
        for row in lessons.preferences(6)
        for i in range(1, 4)
    ]
    data = ("--data", lessons.write(tmp_path / "data.jsonl", rows), "--objective", "dpo")
    capfd.readouterr()
    out = tmp_path / "split"
    quick = ("--max-steps", 2, "--evaluations", 1, "--component", "bias")
    arguments = (*quick, *FEATURES, *data)
    assert teaching.train(monkeypatch, built, out, *arguments, "--eval-share", 0.2) == 0
    record = teaching.record_of(out)
    assert (record["data"]["n"], record["data"]["n_prompts"]) == (15, 5)
    assert (record["evaluated"]["n"], record["evaluated"]["n_prompts"]) == (3, 1)
    assert record["evaluated"]["n_shared"] == 0
    err = " ".join(capfd.readouterr().err.split())
    assert "15 training examples have 5 prompts" in err
    assert "3 held-out examples have 1 prompt" in err
    held = [row | {"chosen": row["chosen"] + " w9"} for row in lessons.preferences(2)]
    held += lessons.preferences(2, seed=9)
    other = ("--eval-data", lessons.write(tmp_path / "held.jsonl", held))
    assert teaching.train(monkeypatch, built, tmp_path / "out", *arguments, *other) == 0
    assert teaching.record_of(tmp_path / "out")["evaluated"]["n_shared"] == 2
    err = " ".join(capfd.readouterr().err.split())
    assert "2 of 4 held-out examples have a prompt that is trained on too" in err


def test_rows_that_differ_by_blanks_are_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"{row['text']} \n"} for row in lessons.texts(2)]
    held = ("--eval-data", lessons.write(tmp_path / "held.jsonl", rows))
    capfd.readouterr()
    assert teaching.train(monkeypatch, built, tmp_path / "out", *held) == 2
    world.one_line(capfd, "2 of 2 examples of", "sft.jsonl too")
