"""What one backward pass tells of an edit: its gradients are a real adapter's, its curvature is KL's."""

from pathlib import Path

import adapted
import lessons
import numpy as np
import pytest
import torch
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.config import Target
from cleansteer.adapters.gradients import Site, text_gradients
from cleansteer.adapters.layer import find_layer
from cleansteer.adapters.model import load_target
from cleansteer.adapters.positions import EVERY, Which
from peft import get_peft_model

HOOK = "blocks.1.hook_resid_pre"
FEATURES = [0, 3, 11, 17, 25, 40]
ROWS = [
    {"input_ids": [0, *np.random.default_rng(i).integers(1, 60, 5 + i).tolist()]} for i in range(7)
]
ROWS = [row | {"labels": list(row["input_ids"])} for row in ROWS]
ROWS[2]["labels"][:4] = [-100] * 4


@pytest.fixture(autouse=True)
def _with_gradients() -> object:
    with torch.enable_grad():
        yield


def site_of(network: object, path: Path, reads: bool, which: Which = EVERY) -> Site:
    target = Target.parse({"hook": HOOK, "sae": {"path": str(path)}, "features": FEATURES})
    fit = load_target(target, network)
    return Site(fit.place, fit.part, reads, which)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("saes") / "sae")


def wrapped(path: Path, component: str, which: Which, family: str) -> tuple[object, torch.Tensor]:
    """A model with an adapter of PEFT's, and its parameter."""
    target = {"hook": HOOK, "sae": {"path": str(path)}, "features": FEATURES}
    config = SaeAdapterConfig(
        targets=[target], component=component, positions=which.positions, edit_bos=which.bos
    )
    model = get_peft_model(adapted.network(family), config).eval()
    layer, place = find_layer(model, HOOK)
    return model, getattr(layer, f"cleansteer_{place}")["default"].by_feature()[component]


def said(model: object, row: dict[str, list[int]]) -> torch.Tensor:
    """Log probabilities of the tokens that follow, one row alone."""
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    logits = model(input_ids=ids, labels=labels, use_cache=False).logits[0, :-1]
    logs = torch.log_softmax(logits.float(), dim=-1)
    following = labels[0, 1:]
    return logs[torch.arange(len(following)), following.clamp(min=0)][following != -100]


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
@pytest.mark.parametrize("component", ["scale", "bias"])
@pytest.mark.parametrize(
    "which", [Which(), Which("all", bos=False), Which("last"), Which("completion")], ids=str
)
def test_gradients_of_texts_are_those_of_a_real_adapter(
    family: str, component: str, which: Which, path: Path
) -> None:
    network = adapted.network(family)
    site = site_of(network, path, component == "scale", which)
    found = text_gradients(network, [site], ROWS, seed=None)
    model, parameter = wrapped(path, component, which, family)
    n_tokens = 0
    for row, ours in zip(ROWS, found.by_text, strict=True):
        parameter.grad = None
        tokens = said(model, row)
        tokens.sum().backward()
        n_tokens += len(tokens)
        np.testing.assert_allclose(ours, parameter.grad, rtol=2e-3, atol=2e-5)
    assert found.n_tokens == n_tokens
    assert found.by_text.abs().max() > 1e-3


@pytest.mark.parametrize("component", ["scale", "bias"])
def test_fishers_information_is_the_curvature_of_kl(component: str, path: Path) -> None:
    """KL of a small edit, by forward passes, is 1/2 s' F s."""
    network = adapted.network("gpt2")
    site = site_of(network, path, component == "scale")
    many = [row for row in ROWS for _ in range(400)]
    found = text_gradients(network, [site], many, seed=0)
    fisher = found.by_text.T @ found.by_text / found.n_tokens
    model, parameter = wrapped(path, component, Which(), "gpt2")
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        with torch.no_grad():
            parameter.copy_(0.02 * torch.randn(len(FEATURES), generator=generator))
            total, count = 0.0, 0
            for row in ROWS:
                ids = torch.tensor([row["input_ids"]])
                counted = torch.tensor(row["labels"][1:]) != -100
                with model.disable_adapter():
                    base = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
                ours = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
                total += float((base.exp() * (base - ours)).sum(dim=-1)[counted].sum())
                count += int(counted.sum())
            s = parameter.detach().double()
            forecast = float(s @ fisher @ s) / 2
        assert forecast == pytest.approx(total / count, rel=0.12)
    assert found.fisher.tolist() == pytest.approx(fisher.diagonal().tolist())


def test_the_same_seed_draws_the_same(path: Path) -> None:
    network = adapted.network("gpt2")
    site = site_of(network, path, reads=True)
    one, same, other = (text_gradients(network, [site], ROWS, seed).by_text for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_batches_and_padding_change_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = adapted.network("llama")
    site = site_of(network, path, reads=True)
    together = text_gradients(network, [site], ROWS, seed=None)
    monkeypatch.setattr("cleansteer.adapters.padding._TOKENS_A_PASS", 1)
    alone = text_gradients(network, [site], ROWS, seed=None)
    torch.testing.assert_close(together.by_text, alone.by_text, rtol=1e-3, atol=1e-5)
    assert together.n_tokens == alone.n_tokens


def test_the_model_is_left_as_it_was(path: Path) -> None:
    network = adapted.network("gpt2")
    before = adapted.logits(network)
    text_gradients(network, [site_of(network, path, reads=True)], ROWS, seed=0)
    assert torch.equal(adapted.logits(network), before)
    assert not any(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("reads", [True, False])
def test_of_several_places_each_has_the_gradients_that_it_has_alone(
    reads: bool, path: Path, tmp_path: Path
) -> None:
    """With the tokens that are drawn the same, so that F has the products of both."""
    network = adapted.network("gpt2")
    here = site_of(network, path, reads)
    heads = {"hook": "blocks.2.attn.hook_z", "sae": {"path": str(path)}, "features": [0, 3]}
    fit = load_target(Target.parse(heads), network)
    there = Site(fit.place, fit.part, reads, EVERY)
    together, one, other = (
        text_gradients(network, sites, ROWS, seed=4).by_text
        for sites in ([here, there], [here], [there])
    )
    torch.testing.assert_close(together, torch.cat([one, other], dim=1))
    assert one.abs().max() > 1e-3
    assert other.abs().max() > 1e-3
