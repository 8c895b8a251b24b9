"""Reference text: drift of other latents, KL, and what stands at a hook point."""

from pathlib import Path
from typing import Any

import beginnings
import families
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters import SaeAdapterConfig, Target
from cleansteer.adapters.layer import find_layer
from cleansteer.adapters.model import load_target
from cleansteer.adapters.objective import ADAPTER
from cleansteer.adapters.reference import Drift, Reference, reference_rows, values_at
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def sae(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"), request.param), tiny.sae(
        request.param, lessons.HOOK
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


def values_of(
    network: nn.Module, tokenizer: Any, hook: str, texts: list[str], length: int, bos: bool = False
) -> Tensor:
    return values_at(network, hook, reference_rows(network, tokenizer, texts, length, bos))


# Drift


def drifting(
    path: Path, features: list[int] | None, seed: int = 0, n_texts: int = 6
) -> tuple[Any, Any, str, Drift]:
    """An adapted model, its layer and place, and the drift on some texts."""
    network = lessons.network()
    texts = [row["text"] for row in lessons.texts(n_texts)]
    values = values_of(network, tiny.tokenizer(), lessons.HOOK, texts, 64)
    config = lessons.config(path, "lerp", features)
    whole = load_target(Target.parse(config.targets[0]).with_features(None), network).part
    model = get_peft_model(network, config)
    layer, place = find_layer(model, lessons.HOOK)
    return model, layer, place, Drift(values, whole, features, seed)


def test_nothing_drifts_at_the_start(sae: Any) -> None:
    _, layer, place, drift = drifting(sae[0], lessons.ACTIVE)
    assert drift(layer, place, ADAPTER, 0) == 0


def test_drift_is_that_of_the_whole_sae(sae: Any) -> None:
    """By hand: SAELens' encoder before and after an edit with SAELens' decoder rows."""
    path, made = sae
    model, layer, place, drift = drifting(path, lessons.ACTIVE)
    lessons.disturb(model)
    found = drift(layer, place, ADAPTER, 5)
    component = getattr(layer, f"cleansteer_{place}")[ADAPTER]
    centred = drift.whole.centred

    def encode(x: Tensor) -> Tensor:
        return made.encode(x - x.mean(dim=-1, keepdim=True) if centred else x)

    x = drift.values
    latents = encode(x)
    edit = component.weight * (component.target - latents[:, lessons.ACTIVE])
    moved = (encode(x + edit @ made.W_dec[lessons.ACTIVE]) - latents).abs()
    others = [f for f in range(96) if f not in lessons.ACTIVE]
    assert moved[:, others].sum() > 0
    assert moved[:, lessons.ACTIVE].sum() > 0
    torch.testing.assert_close(found, moved[:, others].sum(dim=-1).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", [None, list(range(96))])
def test_what_is_allowed_does_not_count(features: list[int] | None, path: Path) -> None:
    model, layer, place, drift = drifting(path, features)
    lessons.disturb(model)
    assert drift(layer, place, ADAPTER, 0) == 0


def test_tokens_are_drawn_by_seed_and_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cleansteer.adapters.reference._TOKENS_A_STEP", 4)
    model, layer, place, drift = drifting(path, lessons.ACTIVE)
    lessons.disturb(model)
    found = [float(drift(layer, place, ADAPTER, step)) for step in (0, 1, 2, 0)]
    assert found[0] == found[3]
    assert len(set(found)) == 3
    again = Drift(drift.values, drift.whole, lessons.ACTIVE, 1)
    assert float(again(layer, place, ADAPTER, 0)) not in found


def test_going_down_the_drift_lets_it_fall(path: Path) -> None:
    model, layer, place, drift = drifting(path, lessons.ACTIVE)
    lessons.disturb(model)
    optimiser = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.05)
    found = []
    for _ in range(40):
        with torch.enable_grad():
            loss = drift(layer, place, ADAPTER, 0)
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(float(loss.detach()))
    assert found[-1] < 0.2 * found[0]


# Reading


@pytest.mark.parametrize("family", [*families.FAMILIES, families.UNKNOWN])
def test_values_are_those_at_the_hook(family: str) -> None:
    network = families.network(family, torch.float32)
    texts = [row["text"] for row in lessons.texts(3)] + [" ".join(["w7"] * 80)]
    for name in families.sites_of(family):
        if name == "hook_resid_mid":
            continue  # no module gives it
        hook = f"blocks.1.{name}"
        if name == "hook_resid_post" and family == families.UNKNOWN:
            hook = "blocks.2.hook_resid_post"
        found = values_of(network, tiny.tokenizer(), hook, texts, 10)
        expected = []
        for text in texts:
            ids = torch.tensor([[int(word[1:]) for word in text.split()][:10]])
            expected.append(families.read_all(network, ids, hook)[0])
        torch.testing.assert_close(found, torch.cat(expected))
        assert not any(module._forward_hooks for module in network.modules())
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_padding_that_a_tokenizer_adds_is_not_read() -> None:
    texts = [row["text"] for row in lessons.texts(4)]

    pad = tiny.tokenizer()
    pad.backend_tokenizer.enable_padding(length=12, pad_id=0, pad_token="<eos>")
    expected, padded = (
        values_of(lessons.network(), tokenizer, lessons.HOOK, texts, 12)
        for tokenizer in (tiny.tokenizer(), pad)
    )
    assert torch.equal(padded, expected)


@pytest.mark.parametrize("kind", beginnings.KINDS)
def test_reference_texts_begin_with_bos_once(kind: str) -> None:
    """The values are those of an untouched model on these tokens."""
    made, start = beginnings.tokenizer(kind), beginnings.start(kind)
    word = made.bos_token or made.eos_token
    texts = ["w3 w4 w5", f"{word} w6 w7"]
    network = lessons.network()
    for bos, fronts in ((True, ([start], [start])), (False, ([], [start]))):
        found = values_of(network, made, lessons.HOOK, texts, 64, bos=bos)
        rows = ([*fronts[0], 3, 4, 5], [*fronts[1], 6, 7])
        expected = [
            families.read_all(network, torch.tensor([row]), lessons.HOOK)[0] for row in rows
        ]
        torch.testing.assert_close(found, torch.cat(expected))


def test_reading_ends_at_enough_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cleansteer.adapters.reference._MOST_TOKENS", 11)
    ticks: list[int] = []
    texts = [row["text"] for row in lessons.texts(9, least=4, most=4)]
    rows = reference_rows(lessons.network(), tiny.tokenizer(), texts, 64)
    values = values_at(lessons.network(), lessons.HOOK, rows, ticks.append)
    assert values.shape == (12, tiny.WIDTH)
    assert ticks == [1, 1, 1]


def test_no_text_is_longer_than_the_model_takes() -> None:
    text = " ".join(["w3"] * 100)
    values = values_of(lessons.network(), tiny.tokenizer(), lessons.HOOK, [text], 1000)
    assert values.shape == (64, tiny.WIDTH)


def test_bos_that_is_not_edited_is_left_out() -> None:
    network, texts = lessons.network(), [row["text"] for row in lessons.texts(3)]
    rows = reference_rows(network, tiny.tokenizer(), texts, 64, bos=True)
    values = values_at(network, lessons.HOOK, rows)
    kept = values_at(network, lessons.HOOK, rows, skipped=frozenset({rows[0][0]}))
    starts = torch.tensor([0, *map(len, rows)]).cumsum(0)[:-1]
    others = torch.ones(len(values), dtype=torch.bool)
    others[starts] = False
    assert torch.equal(kept, values[others])
    assert len(kept) == len(values) - 3


# KL


def kl_by_hand(model: Any, rows: list[list[int]]) -> float:
    """Against an untouched model, one text at a time."""
    parts = []
    for row in rows:
        ids = torch.tensor([row])
        ours, base = (
            each(ids).logits[0, :-1].double().log_softmax(-1) for each in (model, lessons.network())
        )
        parts.append((base.exp() * (base - ours)).sum(-1))
    return float(torch.cat(parts).mean())


def adapted(path: Path, kind: str) -> Any:
    config: Any = lessons.config(path, "bias")
    if kind == "lora":
        config = LoraConfig(r=2, target_modules=["c_attn"])
    elif kind == "completion":
        target = config.targets[0]
        config = SaeAdapterConfig(targets=[target], component="bias", positions="completion")
    return get_peft_model(lessons.network(), config)


@pytest.mark.parametrize("kind", ["ours", "lora", "completion"])
def test_kl_is_that_from_the_model_without_the_adapter(kind: str, path: Path) -> None:
    """Of plain text every token is learned, so that all are edited."""
    model = adapted(path, kind).train()
    rows = reference_rows(
        lessons.network(), tiny.tokenizer(), [row["text"] for row in lessons.texts(4)], 64
    )
    assert Reference(rows).divergence(model) == pytest.approx(0, abs=1e-6)
    lessons.disturb(model)
    found = Reference(rows).divergence(model)
    assert model.training
    whole = model.eval()
    if kind == "completion":
        whole = adapted(path, "ours").eval()
        whole.load_state_dict(model.state_dict())
    assert found == pytest.approx(kl_by_hand(whole, rows), rel=1e-4)
    assert found > 0.01
