"""A model with an adapter remains a model: it generates, is copied, saved, loaded, and left."""

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import adapted
import families
import full_sae
import pytest
import torch
from cleansteer.adapters.components import names
from cleansteer.adapters.layer import SaeAdapterLayer
from cleansteer.adapters.slices import Slice
from peft import PeftModel
from torch import Tensor


@pytest.mark.parametrize("family", adapted.FAMILIES)
def test_a_wrapped_layer_answers_as_the_layer(family: str, shelf: Path) -> None:
    """Models ask their layers for more than a forward pass."""
    base = adapted.network(family)
    plain = families.layers_of(base)[1]
    plain.attention_type = "sliding_attention"
    adapted.adapt(base, adapted.adapter([adapted.target(shelf, "blocks.1.hook_resid_pre")]))
    wrapped = families.layers_of(base)[1]
    assert wrapped is not plain
    assert wrapped.attention_type == "sliding_attention"
    for name, module in plain.named_children():
        assert getattr(wrapped, name) is module
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wrapped.nothing
    # As pickle and copy ask, before there is a layer.
    assert not hasattr(SaeAdapterLayer.__new__(SaeAdapterLayer), "mlp")


def test_a_model_without_values_leaves_the_sae_its_own(shelf: Path) -> None:
    """Where the model is on the meta device, a slice cannot follow it there and come back."""
    config = adapted.adapter([adapted.target(shelf, "blocks.1.hook_resid_pre")])
    model = adapted.adapt(adapted.network().to("meta"), config, random=False)
    (layer,) = adapted.layers(model)
    for buffer in layer.slice_entry["default"].buffers():
        assert buffer.device.type == "cpu"


@pytest.mark.parametrize("family", adapted.FAMILIES)
@pytest.mark.parametrize("site", adapted.SITES)
def test_generation_with_and_without_cache(family: str, site: str, shelf: Path) -> None:
    hook = f"blocks.1.{site}"
    width = adapted.width_at(family, hook)
    config = adapted.adapter([adapted.target(shelf, hook, width=width)], "bias")
    model = adapted.adapt(adapted.network(family), config)

    def text(model: Any, cache: bool) -> Tensor:
        return model.generate(
            input_ids=adapted.TOKENS, max_new_tokens=8, do_sample=False, use_cache=cache
        )

    assert torch.equal(text(model, True), text(model, False))
    assert not torch.equal(text(model, True), text(adapted.network(family), True))


@pytest.mark.parametrize("family", adapted.FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family: str, shelf: Path) -> None:
    hooks = ("blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out", "blocks.3.hook_resid_post")
    config = adapted.adapter([adapted.target(shelf, hook) for hook in hooks], "switch")
    found, calls = [], []
    for checkpointing in (False, True):
        model = adapted.adapt(adapted.network(family), config)
        seen: list[int] = []
        mlp = families.layers_of(model.base_model.model)[1].mlp
        mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        torch.manual_seed(0)  # of dropout
        with torch.enable_grad():
            adapted.logits(model).square().mean().backward()
        found.append([parameter.grad for parameter in adapted.parameters(model).values()])
        calls.append(len(seen))
    assert calls == [1, 2]
    for plain, again in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, again, rtol=adapted.GRADIENT, atol=1e-7)


@pytest.mark.parametrize("family", adapted.FAMILIES)
def test_a_copy_is_independent(family: str, shelf: Path) -> None:
    sites = ("hook_resid_pre", "hook_mlp_out", "hook_attn_out")
    config = adapted.adapter([adapted.target(shelf, f"blocks.1.{site}") for site in sites])
    model = adapted.adapt(adapted.network(family), config)
    expected = adapted.logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(adapted.logits(twin), expected)
    adapted.randomise(twin, seed=8)
    changed = adapted.logits(twin)
    assert not torch.equal(changed, expected)
    assert torch.equal(adapted.logits(model), expected)
    adapted.randomise(model, seed=9)
    assert torch.equal(adapted.logits(twin), changed)
    assert torch.equal(adapted.logits(twin.unload()), adapted.base_logits(family))
    adapted.randomise(model)
    assert torch.equal(adapted.logits(model), expected)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated", "topk"])
def test_only_the_slice_is_in_memory(architecture: str, shelf: Path) -> None:
    target = adapted.target(shelf, "blocks.1.hook_resid_pre", architecture)
    model = adapted.adapt(adapted.network(), adapted.adapter([target]))
    (layer,) = adapted.layers(model)
    (part,) = [module for module in layer.modules() if isinstance(module, Slice)]
    buffers = dict(part.named_buffers())
    assert not list(part.parameters())
    k, d = len(adapted.FEATURES), adapted.tiny.WIDTH
    per_feature = {"standard": 1, "jumprelu": 2, "gated": 3, "topk": 2}[architecture]
    expected = d + k * (2 * d + per_feature)
    if architecture == "topk":
        expected += adapted.N_FEATURES * (d + 1)
    else:
        assert all(adapted.N_FEATURES not in buffer.shape for buffer in buffers.values())
    assert sum(buffer.numel() for buffer in buffers.values()) == expected
    storages = {buffer.untyped_storage().data_ptr(): buffer for buffer in buffers.values()}
    assert sum(b.untyped_storage().nbytes() / b.element_size() for b in storages.values()) == (
        sum(buffer.numel() for buffer in buffers.values())
    )


@pytest.mark.parametrize("component", names())
def test_only_component_parameters_are_saved(component: str, shelf: Path, tmp_path: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    hooks = ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out")
    config = adapted.adapter([adapted.target(shelf, hook) for hook in hooks], component)
    base = adapted.network()
    own_names = set(base.state_dict())
    model = adapted.adapt(base, config)
    own = adapted.parameters(model)
    state = {name.replace(".base_layer", "") for name in model.base_model.model.state_dict()}
    assert state - own_names == {name.removeprefix("base_model.model.") for name in own}
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == get_peft_model_state_dict(model).keys()
    assert saved.keys() == {name.replace(".default.", ".") for name in own}
    assert sum(t.numel() for t in saved.values()) == sum(p.numel() for p in own.values())


def test_two_hundred_scales_take_less_than_ten_kilobytes(shelf: Path, tmp_path: Path) -> None:
    target = adapted.target(
        shelf, "blocks.1.hook_resid_pre", features=list(range(200)), n_features=240
    )
    model = adapted.adapt(adapted.network(), adapted.adapter([target]))
    model.save_pretrained(tmp_path)
    files = [path for path in tmp_path.iterdir() if path.name != "README.md"]
    assert {path.name for path in files} == {"adapter_config.json", "adapter_model.safetensors"}
    assert sum(path.stat().st_size for path in files) < 10_000


@pytest.mark.parametrize("component", names())
def test_loading_with_little_memory(component: str, shelf: Path, tmp_path: Path) -> None:
    hooks = ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out")
    config = adapted.adapter([adapted.target(shelf, hook, "topk") for hook in hooks], component)
    model = adapted.adapt(adapted.network(), config)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(adapted.network(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(adapted.logits(loaded), adapted.logits(model))
    loaded.load_adapter(tmp_path, "second", low_cpu_mem_usage=True)
    loaded.set_adapter("second")
    assert torch.equal(adapted.logits(loaded), adapted.logits(model))


@pytest.mark.parametrize("site", ["hook_resid_pre", "hook_resid_post"])
@pytest.mark.parametrize("family", adapted.FAMILIES)
def test_hidden_states_are_the_edited_ones(family: str, site: str, shelf: Path) -> None:
    config = adapted.adapter([adapted.target(shelf, f"blocks.1.{site}")])
    model = adapted.adapt(adapted.network(family), config)
    slow = adapted.network(family)
    found = model(adapted.TOKENS, output_hidden_states=True).hidden_states
    with full_sae.installed(slow, adapted.edits(config, model)):
        expected = slow(adapted.TOKENS, output_hidden_states=True).hidden_states
    assert len(found) == len(expected) == families.LAYERS + 1
    for number in range(2, len(expected)):
        assert adapted.relative(found[number], expected[number]) < adapted.EXACT, number


def test_hidden_states_were_asked_for_before(shelf: Path) -> None:
    """Transformers' own hooks, once there, come after the edit all the same."""
    config = adapted.adapter([adapted.target(shelf, "blocks.1.hook_resid_post")])
    network, fresh = adapted.network(), adapted.adapt(adapted.network(), config)
    network(adapted.TOKENS, output_hidden_states=True)
    model = adapted.adapt(network, config)
    for found, expected in zip(
        model(adapted.TOKENS, output_hidden_states=True).hidden_states,
        fresh(adapted.TOKENS, output_hidden_states=True).hidden_states,
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_a_deleted_adapter_leaves_nothing_in_memory(shelf: Path) -> None:
    hooks = ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out")
    config = adapted.adapter([adapted.target(shelf, hook) for hook in hooks])
    model = adapted.adapt(adapted.network(), config)
    model.add_adapter("second", copy.deepcopy(config))
    parts = [
        weakref.ref(part[name])
        for layer in adapted.layers(model)
        for name in ("default", "second")
        for part in (layer.slice_entry, layer.slice_mlp)
        if name in part
    ]
    assert len(parts) == 4
    model.delete_adapter("second")
    gc.collect()
    assert [part() is None for part in parts] == [False, True, False, True]
    model.delete_adapter("default")
    gc.collect()
    assert all(part() is None for part in parts)
    bare = model.base_model.model  # PEFT's own has no forward pass without an adapter
    assert torch.equal(adapted.logits(bare), adapted.base_logits("gpt2"))


def test_a_list_inside_a_layer_is_not_the_layers(shelf: Path) -> None:
    """As where a model has as many experts as layers."""
    network = adapted.network("llama")
    for layer in families.layers_of(network):
        layer.mlp.experts = torch.nn.ModuleList(torch.nn.Identity() for _ in range(4))
    hooks = ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out")
    config = adapted.adapter([adapted.target(shelf, hook) for hook in hooks])
    plain = adapted.adapt(adapted.network("llama"), config)
    assert torch.equal(adapted.logits(adapted.adapt(network, config)), adapted.logits(plain))


def test_many_layers(shelf: Path) -> None:
    """From twenty modules on, PEFT looks for shorter names of them."""
    network = adapted.tiny.network(n_layer=24, n_embd=adapted.tiny.WIDTH)
    expected = adapted.logits(network)
    targets = [adapted.target(shelf, f"blocks.{i}.hook_resid_pre") for i in range(24)]
    model = adapted.adapt(network, adapted.adapter(targets), random=False)
    assert len(adapted.layers(model)) == 24
    assert torch.equal(adapted.logits(model), expected)
