"""A tuned model against its base: means are those of plain loops, and a planted change is found first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lessons
import pytest
import tiny
import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

Command = Callable[..., Any]
TEXTS = lessons.texts(12, seed=4, least=5, most=9)


@pytest.fixture(scope="module")
def pushed(built: Path) -> Path:
    """The base, that writes feature 17's direction at every token in front of the hook."""
    model = AutoModelForCausalLM.from_pretrained(built / "model")
    decoder = SAE.load_from_disk(str(built / "primary")).W_dec.detach()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.bias += 3 * decoder[17]
    model.save_pretrained(built / "pushed")
    return built / "pushed"


@pytest.fixture(autouse=True, scope="module")
def _texts(built: Path) -> None:
    lessons.write(built / "some.jsonl", TEXTS)


def told(built: Path, tuned: Path) -> tuple[object, ...]:
    setting = ("--setting", built / "tiny.toml")
    return ("--tuned", tuned, *setting, "--data", built / "some.jsonl", "--top", 96)


def means(built: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean activations and firing rates behind BOS, by SAELens over plain Hugging Face."""
    sae, tokenizer = SAE.load_from_disk(str(built / "primary")), tiny.tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    found = []
    for row in TEXTS:
        ids = [start, *tokenizer(row["text"], add_special_tokens=False)["input_ids"]]
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0, 1:]
        found.append(sae.encode(states))
    together = torch.cat(found)
    return together.mean(dim=0), (together > 1e-6).float().mean(dim=0)


def test_means_are_those_of_plain_loops_and_the_planted_feature_is_first(
    built: Path, pushed: Path, audit: Command
) -> None:
    found = audit(*told(built, pushed))
    before, fires_before = means(built, built / "model")
    after, fires_after = means(built, pushed)
    norms = SAE.load_from_disk(str(built / "primary")).W_dec.norm(dim=1)
    assert len(found["features"]) == 96
    for each in found["features"]:
        index = each["feature"]
        assert each["before"] == pytest.approx(float(before[index]), abs=1e-5)
        assert each["after"] == pytest.approx(float(after[index]), abs=1e-5)
        assert each["fires_before"] == pytest.approx(float(fires_before[index]), abs=1e-6)
        assert each["fires_after"] == pytest.approx(float(fires_after[index]), abs=1e-6)
        size = float((after - before)[index].abs() * norms[index])
        assert each["residual"] == pytest.approx(size, abs=1e-4)
        assert each["low"] <= each["after"] - each["before"] + 1e-9
        assert each["high"] >= each["after"] - each["before"] - 1e-9
    assert found["features"][0]["feature"] == 17
    assert found["features"][0]["low"] > 0
    assert 0 < found["n_changed"] <= 96


def test_the_base_itself_has_not_changed(built: Path, audit: Command) -> None:
    found = audit(*told(built, built / "model"))
    assert found["n_changed"] == 0
    assert found["explained_before"] == found["explained_after"]
    assert all(each["before"] == each["after"] for each in found["features"])


def test_shown_in_a_terminal(built: Path, pushed: Path, shown: Command) -> None:
    given = ("--tuned", pushed, "--setting", built / "tiny.toml", "--data", built / "some.jsonl")
    err = shown(*given)
    for part in ("against model", "features differ", "of the variance in the base model"):
        assert part in err


def test_what_does_not_fit_is_refused(
    built: Path,
    pushed: Path,
    tmp_path: Path,
    refused: Command,
) -> None:
    config = GPT2Config(vocab_size=600, n_layer=2, n_embd=16, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "other")
    tiny.tokenizer().save_pretrained(tmp_path / "other")
    setting, data = ("--setting", built / "tiny.toml"), ("--data", built / "some.jsonl")
    one = lessons.write(tmp_path / "one.jsonl", TEXTS[:1])
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--tuned", pushed, *setting), "expected --data as well"),
        (("--tuned", pushed, *data), "expected --setting as well"),
        (("--tuned", pushed, *setting, "--data", one), "expected 2 at least"),
        (("--tuned", tmp_path / "other", *setting, *data), "expected a fine-tuning of model"),
        (("--tuned", pushed, "--lora", pushed, *setting, *data), "exclude each other"),
        (("--tuned", pushed, *setting, *data, "--by", "size"), "does not apply to --tuned"),
    ]
    for given, part in cases:
        assert part in refused(*given)
