"""The implementation of attention that a model is loaded with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import minimal
import pytest
import tiny
import torch
from cleansteer.core.networks import load_network, needs_eager
from transformers import Gemma2Config, Gemma3Config, Gemma3TextConfig, GPT2Config, LlamaConfig
from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel

TOKENS = tiny.contexts(3, 12)


def saved(family: str, folder: Path) -> Any:
    """The setting of a network in a folder."""
    families.network(family, torch.float32).save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    return minimal.setting(folder)


def loss(network: Any) -> float:
    return float(network.eval()(TOKENS, labels=TOKENS, use_cache=False).loss)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_without_a_cap_it_is_transformers_own_choice(family: str, tmp_path: Path) -> None:
    network, _ = load_network(saved(family, tmp_path), attention=None)
    assert network.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("version", ["of today", "that would take SDPA"])
def test_with_a_cap_it_is_the_screenings(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever transformers would choose: some versions take SDPA, which knows no cap."""
    if version != "of today":
        monkeypatch.setattr(Gemma2PreTrainedModel, "_supports_sdpa", True)
    setting = saved("gemma2", tmp_path)
    training, _ = load_network(setting, attention=None)
    screening, _ = load_network(setting)
    assert training.config._attn_implementation == "eager"
    assert loss(training) == loss(screening)
    uncapped, _ = load_network(setting)
    for layer in uncapped.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert abs(loss(uncapped) - loss(screening)) > 1e-4, "and the cap matters"


def test_what_is_asked_for_is_taken(tmp_path: Path) -> None:
    network, _ = load_network(saved("gpt2", tmp_path), attention="eager")
    assert network.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(), False),
        (LlamaConfig(), False),
        (Gemma2Config(), True),
        (Gemma2Config(attn_logit_softcapping=None), False),
        (Gemma3TextConfig(), False),
        (Gemma3TextConfig(final_logit_softcapping=30.0), False),
        (Gemma3Config(text_config={"attn_logit_softcapping": 50.0}), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_caps_of_attention_alone_count(config: Any, expected: bool) -> None:
    assert needs_eager(config) is expected


@pytest.mark.parametrize("name", ["attn_logit_softcapping", "attention_logit_soft_cap"])
def test_a_family_that_is_not_known_is_told_by_its_configuration(name: str) -> None:
    for value, expected in ((30.0, True), (None, False)):
        text = SimpleNamespace(to_dict=lambda value=value: {name: value, "hidden_size": 8})
        assert needs_eager(SimpleNamespace(get_text_config=lambda text=text: text)) is expected
