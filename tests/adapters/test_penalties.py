"""Penalties: sizes of edits, drift of other latents, what stands at a hook point."""

from pathlib import Path
from typing import Any

import beginnings
import families
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters import SaeAdapterConfig, Target
from cleansteer.adapters.components.component import Component
from cleansteer.adapters.model import load_target
from cleansteer.adapters.penalties import Drift, values_at, watching
from cleansteer.adapters.trainers import ADAPTER, find_layer
from peft import get_peft_model
from torch import Tensor

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}
"""Float32 in another order of summation."""


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def sae(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"), request.param), tiny.sae(
        request.param, lessons.HOOK
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


def disturb(model: Any, size: float = 0.3) -> None:
    """Give an adapter random parameters."""
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)


def batch(*lengths: int) -> tuple[Tensor, Tensor]:
    """Contexts padded on the right, and their mask."""
    ids = tiny.contexts(len(lengths), max(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


# Sizes of edits


@pytest.mark.parametrize("component", ["scale", "lerp", "mlp", "sparse", "switch"])
def test_sizes_are_of_tokens_that_count(component: str, path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path, component))
    disturb(model)
    ids, mask = batch(7, 4, 1)
    with torch.enable_grad(), watching(model) as watch:
        model(ids, attention_mask=mask, use_cache=False)
    # By hand: what the model without padding shows at the site, through SAELens and the component.
    made = tiny.sae("standard", lessons.HOOK)
    layer, place = find_layer(model, lessons.HOOK)
    edit = getattr(layer, f"cleansteer_{place}")[ADAPTER]
    sizes = []
    for row, length in zip(ids, (7, 4, 1), strict=True):
        x = families.read_all(lessons.network(), row[None, :length], lessons.HOOK)[0]
        # 'auto': centred where the model's norms are.
        part = getattr(layer, f"slice_{place}")[ADAPTER]
        x = x - x.mean(dim=-1, keepdim=True) if part.centred else x
        sizes.append(edit(made.encode(x)[:, lessons.ACTIVE]).abs().sum(dim=-1))
    expected = torch.cat(sizes).mean()
    assert expected > 0.01
    torch.testing.assert_close(watch.edit_size(mask), expected, **ROUNDING)
    assert watch.edit_size(None) > 0
    assert watch.edit_size(None) != watch.edit_size(mask)


@pytest.mark.parametrize("shape", [(3, 6), (2, 7), (21,)])
def test_a_mask_that_does_not_fit_is_an_error(shape: tuple[int, ...], path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path))
    disturb(model)
    with torch.enable_grad(), watching(model) as watch:
        model(batch(7, 4, 1)[0], use_cache=False)
    with pytest.raises(ValueError, match=r"does not fit edits at \(3, 7\) tokens"):
        watch.edit_size(torch.ones(shape))


def test_what_does_not_read_has_one_size(path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path, "bias"))
    disturb(model)
    ids, mask = batch(5, 3)
    with torch.enable_grad(), watching(model) as watch:
        model(ids, attention_mask=mask, use_cache=False)
    (bias,) = (p for p in model.parameters() if p.requires_grad)
    torch.testing.assert_close(watch.edit_size(mask), bias.abs().sum())


def test_places_are_summed_and_passes_without_gradient_left_out(path: Path) -> None:
    targets = [
        {"hook": hook, "sae": {"path": str(path)}, "features": lessons.ACTIVE}
        for hook in (lessons.HOOK, "blocks.2.hook_resid_post")
    ]
    model = get_peft_model(lessons.network(), SaeAdapterConfig(targets=targets, component="bias"))
    disturb(model)
    ids, mask = batch(4, 4)
    with torch.enable_grad(), watching(model) as watch:
        with torch.no_grad():
            model(ids, use_cache=False)
        with model.disable_adapter():
            model(ids, use_cache=False)
        assert watch.edits == []
        assert watch.edit_size(mask) == 0
        model(ids, use_cache=False)
    biases = [p for p in model.parameters() if p.requires_grad]
    assert len(biases) == len(watch.edits) == 2
    expected = sum(bias.abs().sum() for bias in biases)
    torch.testing.assert_close(watch.edit_size(mask), expected)


@pytest.mark.parametrize("fails", [False, True])
def test_watching_leaves_nothing_behind(fails: bool, path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path))
    hooks = [m._forward_hooks for m in model.modules() if isinstance(m, Component)]
    before = [dict(found) for found in hooks]
    try:
        with watching(model) as watch:
            assert [dict(found) for found in hooks] != before
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert [dict(found) for found in hooks] == before
    with torch.enable_grad():
        model(tiny.contexts(1), use_cache=False)
    assert watch.edits == []


# Drift


def drifting(
    path: Path, features: list[int] | None, seed: int = 0, n_texts: int = 6
) -> tuple[Any, Any, str, Drift]:
    """An adapted model, its layer and place, and the drift on some texts."""
    network = lessons.network()
    texts = [row["text"] for row in lessons.texts(n_texts)]
    values = values_at(network, tiny.tokenizer(), lessons.HOOK, texts, 64)
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
    disturb(model)
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
    disturb(model)
    assert drift(layer, place, ADAPTER, 0) == 0


def test_tokens_are_drawn_by_seed_and_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cleansteer.adapters.penalties._TOKENS_A_STEP", 4)
    model, layer, place, drift = drifting(path, lessons.ACTIVE)
    disturb(model)
    found = [float(drift(layer, place, ADAPTER, step)) for step in (0, 1, 2, 0)]
    assert found[0] == found[3]
    assert len(set(found)) == 3
    again = Drift(drift.values, drift.whole, lessons.ACTIVE, 1)
    assert float(again(layer, place, ADAPTER, 0)) not in found


def test_going_down_the_drift_lets_it_fall(path: Path) -> None:
    model, layer, place, drift = drifting(path, lessons.ACTIVE)
    disturb(model)
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
        found = values_at(network, tiny.tokenizer(), hook, texts, 10)
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
        values_at(lessons.network(), tokenizer, lessons.HOOK, texts, 12)
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
        found = values_at(network, made, lessons.HOOK, texts, 64, bos=bos)
        rows = ([*fronts[0], 3, 4, 5], [*fronts[1], 6, 7])
        expected = [
            families.read_all(network, torch.tensor([row]), lessons.HOOK)[0] for row in rows
        ]
        torch.testing.assert_close(found, torch.cat(expected))


def test_reading_ends_at_enough_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cleansteer.adapters.penalties._MOST_TOKENS", 11)
    ticks: list[int] = []
    texts = [row["text"] for row in lessons.texts(9, least=4, most=4)]
    values = values_at(lessons.network(), tiny.tokenizer(), lessons.HOOK, texts, 64, ticks.append)
    assert values.shape == (11, tiny.WIDTH)
    assert ticks == [1, 1, 1]


def test_no_text_is_longer_than_the_model_takes() -> None:
    text = " ".join(["w3"] * 100)
    values = values_at(lessons.network(), tiny.tokenizer(), lessons.HOOK, [text], 1000)
    assert values.shape == (64, tiny.WIDTH)
