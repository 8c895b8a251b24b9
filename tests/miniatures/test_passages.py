"""English passages that ship beside the real model's SAEs."""

import json
import random
from pathlib import Path

import pytest
from cleansteer.miniatures.real import program
from cleansteer.miniatures.real.passages import (
    FILES,
    FRESH_EVERY,
    MOST,
    passages,
    write_passages,
)
from cleansteer.miniatures.real.recipe import RealRecipe
from cleansteer.study.catalogue import load_setting

LEAST = 120


@pytest.mark.parametrize("seed", range(20))
def test_passages_are_the_text_but_for_its_end(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choice("abcdefg  .!?\n") for _ in range(draw.randrange(1500)))
    found = passages(text)
    whole, joined = " ".join(text.split()), " ".join(found)
    assert " ".join(joined.split()) == whole[: len(" ".join(joined.split()))]
    assert all(len(line) >= LEAST for line in found)
    assert not any("\n" in line for line in found)
    left = whole[len(" ".join(joined.split())) :].strip()
    assert len(left) < LEAST


def conversation(number: int) -> str:
    said = " ".join(f"Answer {number} has a sentence numbered {n}." for n in range(12))
    return f"<s>user\nQuestion {number}?<e>\n<s>assistant\n{said}<e>"


def test_fresh_passages_are_of_other_documents(tmp_path: Path) -> None:
    (tmp_path / "conversations.json").write_text(
        json.dumps({"conversations": [conversation(n) for n in range(30)]}), "utf-8"
    )
    file = tmp_path / "novel.txt"
    file.write_text(
        "\n".join(f"It was told in chapter {n}. {'word ' * 40}" for n in range(4000)), "utf-8"
    )
    out = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_passages(tmp_path, [file], RealRecipe(), "<e>", tmp_path / name)
        out.append([(tmp_path / name / f).read_text("utf-8").splitlines() for f in FILES])
    assert out[0] == out[1]
    plain, fresh = out[0]
    for lines, is_fresh in ((plain, False), (fresh, True)):
        assert len(set(lines)) == len(lines)
        assert not any("<" in line or "Question" in line for line in lines)
        answers = {int(line.split()[1]) for line in lines if line.startswith("Answer")}
        assert answers == {n for n in range(30) if (n % FRESH_EVERY == 0) == is_fresh}
        others = sum(not line.startswith("Answer") for line in lines)
        assert others == (MOST // FRESH_EVERY if is_fresh else MOST)
    assert not set(plain) & set(fresh)


def test_the_settings_english_is_whole_and_its_fresh_part_another() -> None:
    setting = load_setting("smollm2-135m")
    parts = []
    for corpus in (setting.corpus, setting.heldout_corpus):
        file = setting.locate(str(corpus.path))
        assert file.resolve().parent == program.WEIGHTS
        lines = file.read_text("utf-8").splitlines()
        assert all(len(line) >= corpus.min_chars for line in lines)
        assert not any("<|im_" in line for line in lines)
        assert len(lines) > 1.5 * corpus.n_contexts
        parts.append(set(lines))
    assert not parts[0] & parts[1]
