"""What docs/isaerft.md shows has been done (see conftest.py): what came of it is what the page says."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forerunner
import numpy as np
import pages
import pytest
import tiny
import torch
from cleansteer.core.records import TrainingRecord
from cleansteer.core.tracked import read_tracking
from huggingface_hub import constants
from peft import PeftModel
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

PAGE = pages.ROOT / "docs" / "isaerft.md"
SFT, DPO = ("code", "code-trl"), ("helpful", "helpful-trl")
ADAPTERS = (*SFT, *DPO)
CHOSEN = 50
STEPS = dict.fromkeys(ADAPTERS, (0, 5, 10, 15, 20)) | {"code": tuple(range(0, 21, 2))}
"""At which there has to be an entry: as is asked for, or as often as is evaluated."""
SINGLE = 1e-4
"""Float32, of logits up to 30."""


@pytest.fixture(scope="module")
def done(walked: Any) -> Iterator[Path]:
    """The folder in which it was done, and what it took from the hub at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(walked.folder / "home" / "hub"))
        yield walked.folder / PAGE.stem


@pytest.fixture(scope="module")
def base(done: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        forerunner.MODEL, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def sae(done: Path) -> SAE[Any]:
    return SAE.from_pretrained(forerunner.RELEASE, forerunner.HOOK)


def rows(done: Path, name: str) -> list[dict[str, str]]:
    lines = (done / f"{name.removesuffix('-trl')}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def columns(done: Path, name: str, *names: str) -> list[list[str]]:
    return [[row[column] for row in rows(done, name)] for column in names]


def learned(done: Path, name: str) -> Tensor:
    (values,) = load_file(done / name / "adapter_model.safetensors").values()
    return values


def features(done: Path, name: str) -> list[int]:
    (target,) = json.loads((done / name / "adapter_config.json").read_text("utf-8"))["targets"]
    return list(range(128)) if target["features"] is None else target["features"]


def scales(done: Path, name: str) -> Tensor:
    """Of all features of the SAE; 0 of those that may not be edited."""
    found = torch.zeros(128)
    found[features(done, name)] = learned(done, name)
    return found


@torch.no_grad()
def scaled(base: Any, sae: SAE[Any], scale: Tensor, ids: Tensor) -> Tensor:
    """Logits of the untouched model with IA3 on latents, written out."""

    def change(module: Any, given: Any, x: Tensor) -> Tensor:
        latents = sae.encode(x)
        return sae.decode(latents * (1 + scale)) + (x - sae.decode(latents))

    handle = base.model.layers[forerunner.LAYER].register_forward_hook(change)
    logits: Tensor = base(ids).logits
    handle.remove()
    return logits


def test_data_are_those_of_its_datasets(done: Path) -> None:
    code, helpful = rows(done, "code"), rows(done, "helpful")
    assert len(code) == 24
    assert "\ninput:\nw" in code[1]["prompt"]
    assert len(helpful) == 23  # in one both answers are the same
    assert helpful[1]["prompt"].count("User: ") == 2
    assert all(row["prompt"].endswith("\n\nAssistant:") for row in helpful)
    assert all(row["chosen"].startswith(" w") for row in helpful)


@pytest.mark.parametrize("name", ADAPTERS)
def test_nothing_but_scales_of_the_named_sae_is_there(name: str, done: Path) -> None:
    config = json.loads((done / name / "adapter_config.json").read_text("utf-8"))
    (target,) = config["targets"]
    assert (config["base_model_name_or_path"], config["component"]) == (forerunner.MODEL, "scale")
    assert (target["hook"], target["sae"]["release"], target["sae"]["id"]) == (
        forerunner.HOOK,
        forerunner.RELEASE,
        forerunner.HOOK,
    )
    assert learned(done, name).shape == (CHOSEN if name == "helpful" else 128,)
    moved = learned(done, name).abs()
    assert 0.01 < moved.max() < 20 * 0.005  # so many steps of AdamW, at most of the learning rate


@pytest.mark.parametrize("name", ADAPTERS)
def test_opened_again_it_is_ia3_on_latents(name: str, done: Path, base: Any, sae: SAE[Any]) -> None:
    ids = tiny.contexts(4, 12)
    expected, without = (
        scaled(base, sae, scale, ids) for scale in (scales(done, name), torch.zeros(128))
    )
    own = AutoModelForCausalLM.from_pretrained(
        forerunner.MODEL, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        found = PeftModel.from_pretrained(own, done / name).eval()(ids).logits
    torch.testing.assert_close(found, expected, rtol=SINGLE, atol=SINGLE)
    assert (expected - without).abs().max() > 50 * SINGLE


def log_probabilities(
    base: Any, sae: SAE[Any], scale: Tensor, prompts: list[str], texts: list[str]
) -> list[Tensor]:
    """Of each token of texts behind their prompts, with BOS in front and EOS behind."""
    tokenizer = AutoTokenizer.from_pretrained(forerunner.MODEL)
    lengths = [1 + len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    wholes = [
        [tokenizer.bos_token_id, *tokenizer(prompt + text)["input_ids"], tokenizer.eos_token_id]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    # What stands behind a text is not seen by it.
    ids = pad_sequence([torch.tensor(whole) for whole in wholes], batch_first=True)
    found = scaled(base, sae, scale, ids)[:, :-1].log_softmax(-1)
    found = found.gather(2, ids[:, 1:, None])[..., 0]
    return [
        row[length - 1 : len(whole) - 1]
        for row, length, whole in zip(found, lengths, wholes, strict=True)
    ]


def gained(base: Any, sae: SAE[Any], scale: Tensor, prompts: list[str], texts: list[str]) -> Tensor:
    """How much likelier each text is with these scales than without, in nats."""
    after, before = (
        log_probabilities(base, sae, each, prompts, texts)
        for each in (scale, torch.zeros_like(scale))
    )
    return torch.stack([(a - b).sum() for a, b in zip(after, before, strict=True)])


@pytest.mark.parametrize("name", SFT)
def test_completions_are_likelier(name: str, done: Path, base: Any, sae: SAE[Any]) -> None:
    prompts, texts = columns(done, name, "prompt", "completion")
    assert gained(base, sae, scales(done, name), prompts, texts).mean() > 0.1


@pytest.mark.parametrize("name", DPO)
def test_preferred_answers_are_preferred(name: str, done: Path, base: Any, sae: SAE[Any]) -> None:
    """By DPO's loss over all pairs, which is log 2 without an adapter."""
    prompts, *answers = columns(done, name, "prompt", "chosen", "rejected")
    chosen, rejected = (gained(base, sae, scales(done, name), prompts, texts) for texts in answers)
    loss = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()
    assert float(loss) < math.log(2) - 0.005


@pytest.mark.parametrize("name", ["code", "helpful"])
def test_the_held_out_loss_fell(name: str, done: Path) -> None:
    record = TrainingRecord.read(done / name / "training.json")
    before, after = record.metrics.before, record.metrics.after
    assert after < before
    if name == "helpful":
        assert before == pytest.approx(math.log(2))  # the adapter begins as its own reference
    assert (record.options.learning_rate, record.options.max_length) == (0.005, 64)
    assert record.evaluated.n == 2


@pytest.mark.parametrize("name", ADAPTERS)
def test_features_were_watched(name: str, done: Path) -> None:
    table = read_tracking(done / name)
    final = table[table["step"] == 20]
    np.testing.assert_allclose(
        final["value"], scales(done, name)[final["feature"].to_numpy()], rtol=1e-5
    )
    assert len(final) == CHOSEN
    assert set(final["parameter"]) == {"scale"}
    assert set(STEPS[name]) <= set(table["step"])
    for row in table.to_dict("records"):
        told = f"about {row['feature']} of {forerunner.LISTING}" if name == "helpful" else ""
        assert row["description"] == told


def test_the_terminal_shows_features_with_their_names(walked: Any, done: Path) -> None:
    steps = dict(
        zip(
            (step[0] if isinstance(step, list) else step for step in pages.steps_of(PAGE)),
            walked.results[PAGE],
            strict=True,
        )
    )
    shown = {name: str(steps[name]["err"]) for name in ("watch", "audit")}
    most = int(scales(done, "helpful").abs().argmax())
    assert f"about {most} of" in shown["watch"]
    assert "50 features: 50 changed" in shown["audit"]
    lines = [line for line in shown["audit"].splitlines() if "  about " in line]
    assert len(lines) == 10
    for line in lines:
        feature, change, *_ = line.split()
        value = float(scales(done, "helpful")[int(feature)])
        assert change == f"{value:+.3f}"  # whole, however long the name
        assert f"about {feature} of" in line
    assert "switching 30 features off one by one: Spearman" in shown["audit"]
