"""Steered writing: every token pushed, against full passes of untouched Hugging Face modules."""

import copy
from functools import cache
from typing import Any

import families
import pytest
import tiny
import torch
from cleansteer.core.models import wrap_model
from cleansteer.core.sites import parse_site
from cleansteer.steering_eval.generation import SteeredModel
from torch import Tensor

N_TOKENS = 9
PROMPTS = tiny.contexts(3)[:, :4]
END = 0
CASES = [
    *((family, "blocks.1.hook_resid_post") for family in (*families.FAMILIES, families.UNKNOWN)),
    ("gpt2", "blocks.1.hook_resid_mid"),
    ("gemma2", "blocks.1.attn.hook_z"),
    ("llama", "blocks.1.hook_mlp_out"),
    ("gpt2", "blocks.0.hook_resid_pre"),
    ("gpt2", "blocks.3.hook_resid_post"),
]


@cache
def networks(family: str) -> tuple[Any, Any]:
    """A network twice: untouched, and as our model, in float64."""
    network = families.network(family)
    return network, wrap_model(copy.deepcopy(network), tiny.tokenizer())


def pushes_for(network: Any, hook: str, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    width = families.width_at(network, hook)
    return size * torch.randn(len(PROMPTS), width, generator=generator).double()


def noise(step: int, size: int, rows: int = len(PROMPTS)) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return -torch.empty(rows, size).exponential_(generator=generator).log()


@pytest.mark.parametrize(("family", "hook"), CASES)
def test_every_token_but_the_first_is_pushed(family: str, hook: str) -> None:
    """Each token is the one that a full pass over all before it, pushed by hand, would have drawn."""
    network, model = networks(family)
    steered, temperature = SteeredModel(model, parse_site(hook, model.n_layers)), 0.7
    rows = pushes_for(network, hook, 2.0)
    written = steered.write(PROMPTS, rows, N_TOKENS, noise, temperature)
    tokens = PROMPTS
    for step in range(N_TOKENS):
        logits = families.run_pushed(network, tokens, hook, rows)[:, -1].float()
        logits[:, END] = -torch.inf
        drawn = (logits / temperature + noise(step, logits.shape[1])).argmax(dim=1)
        tokens = torch.cat([tokens, drawn[:, None]], dim=1)
    assert written.tolist() == tokens[:, PROMPTS.shape[1] :].tolist()
    unsteered = steered.write(PROMPTS, 0 * rows, N_TOKENS, noise, temperature)
    assert (unsteered != written).any(dim=1).all()


@pytest.mark.parametrize(("family", "hook"), CASES)
def test_log_probabilities_are_those_of_full_passes(family: str, hook: str) -> None:
    network, model = networks(family)
    steered = SteeredModel(model, parse_site(hook, model.n_layers))
    tokens, rows = tiny.contexts(3), pushes_for(network, hook, 2.0)
    expected = families.run_pushed(network, tokens, hook, rows).log_softmax(dim=-1)
    found = steered.log_probabilities(tokens, rows, 5)
    torch.testing.assert_close(found, expected[:, -6:-1], atol=1e-5, rtol=1e-5)
    plain = network(tokens, use_cache=False).logits.log_softmax(dim=-1)
    torch.testing.assert_close(
        steered.log_probabilities(tokens, None, 5), plain[:, -6:-1], atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(found, plain[:, -6:-1], atol=1e-2)


def test_without_push_and_noise_it_is_hugging_faces_greedy_text() -> None:
    network, model = networks("llama")
    steered = SteeredModel(model, parse_site("blocks.2.hook_resid_pre", model.n_layers))
    zeros = torch.zeros(len(PROMPTS), tiny.WIDTH)
    written = steered.write(
        PROMPTS, zeros, N_TOKENS, lambda step, size: torch.zeros(len(PROMPTS), size)
    )
    expected = network.generate(
        PROMPTS,
        attention_mask=torch.ones_like(PROMPTS),
        max_new_tokens=N_TOKENS,
        min_new_tokens=N_TOKENS,
        do_sample=False,
        pad_token_id=END,
    )
    assert written.tolist() == expected[:, PROMPTS.shape[1] :].tolist()


def test_rows_do_not_touch_each_other() -> None:
    network, model = networks("gemma3")
    hook = "blocks.2.hook_resid_pre"
    steered = SteeredModel(model, parse_site(hook, model.n_layers))
    rows = pushes_for(network, hook, 2.0)
    together = steered.write(PROMPTS, rows, N_TOKENS, noise)
    for at in range(len(PROMPTS)):
        some = slice(at, at + 1)
        alone = steered.write(
            PROMPTS[some],
            rows[some],
            N_TOKENS,
            lambda step, size, some=some: noise(step, size)[some],
        )
        assert alone[0].tolist() == together[at].tolist()


def test_tokens_are_drawn_from_the_softmax_at_the_temperature() -> None:
    """Of 4,000 draws of one token, each token's share is its probability, within sampling error."""
    _, model = networks("gpt2")
    steered = SteeredModel(model, parse_site("blocks.2.hook_resid_pre", model.n_layers))
    n, temperature = 4000, 2.0
    prompts = PROMPTS[:1].expand(n, -1)
    drawn = steered.write(
        prompts,
        torch.zeros(n, tiny.WIDTH),
        1,
        lambda step, size: noise(7, size, n),
        temperature,
    )
    logits = model.bridge.original_model(PROMPTS[:1], use_cache=False).logits[0, -1].double()
    logits[END] = -torch.inf
    expected = n * (logits / temperature).softmax(dim=0)
    counts = torch.bincount(drawn[:, 0], minlength=len(expected)).double()
    common = expected > 5
    assert common.sum() > 10
    squared = (counts - expected)[common].square() / expected[common]
    assert float(squared.sum() / common.sum()) < 1.6
