"""Every place and every kind of SAE: edits, and gradients, are those of the full SAE."""

import copy
from pathlib import Path
from typing import Any

import adapted
import families
import full_sae
import pytest
import torch
import transformers
from cleansteer.adapters.components import names
from cleansteer.adapters.places import has_layer_norm
from torch import Tensor


@pytest.mark.parametrize("family", [*families.FAMILIES, families.UNKNOWN])
def test_reads_what_hugging_face_has_there(
    family: str, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    for layer in range(families.LAYERS):
        for site in adapted.SITES:
            hook = f"blocks.{layer}.{site}"
            base, width = adapted.network(family), adapted.width_at(family, hook)
            config = adapted.adapter([adapted.target(shelf, hook, width=width)])
            expected = families.read_all(base, adapted.TOKENS, hook)
            change, read = adapted.change_of(adapted.adapt(base, config), watched)
            assert torch.equal(read, expected), hook
            assert change.abs().max() > 0, hook


@pytest.mark.parametrize("family", [*families.FAMILIES, families.UNKNOWN])
def test_several_places_of_one_layer_and_a_later_adapter(family: str, shelf: Path) -> None:
    """All five places of layer 1, the last layer's end, and then an adapter inside layer 1."""
    hooks = [f"blocks.1.{site}" for site in adapted.SITES] + ["blocks.3.hook_resid_post"]
    widths = [adapted.width_at(family, hook) for hook in hooks]
    targets = [
        adapted.target(shelf, hook, features=adapted.FEATURES[: 3 + i], width=width, seed=i)
        for i, (hook, width) in enumerate(zip(hooks, widths, strict=True))
    ]
    first = adapted.adapter(targets, "lerp")
    later = adapted.adapter(
        [
            adapted.target(shelf, hook, "jumprelu", width=width)
            for hook, width in zip(hooks[2:], widths[2:], strict=True)
        ],
        "switch",
    )
    model = adapted.adapt(adapted.network(family), first)
    edits = adapted.edits(first, model)
    adapted.compare(family, model, edits)
    model.add_adapter("later", later)
    adapted.randomise(model, "later", seed=6)
    model.base_model.set_adapter(["default", "later"])
    adapted.compare(family, model, edits + adapted.edits(later, model, "later"))
    model.set_adapter("later")
    adapted.compare(family, model, adapted.edits(later, model, "later"))
    with model.disable_adapter():
        assert torch.equal(adapted.logits(model), adapted.base_logits(family))
    assert torch.equal(adapted.logits(model.unload()), adapted.base_logits(family))
    assert adapted.hooks_of(model) == []


def test_a_later_adapter_inside_a_layer_that_is_wrapped_already(shelf: Path) -> None:
    hooks = ("blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out")
    first, later = (adapted.adapter([adapted.target(shelf, hook)]) for hook in hooks)
    model = adapted.adapt(adapted.network(), first)
    model.add_adapter("later", later)
    adapted.randomise(model, "later")
    model.set_adapter("later")
    alone = adapted.adapt(adapted.network(), later)
    assert torch.equal(adapted.logits(model), adapted.logits(alone))
    assert len(adapted.layers(model)) == 1


KINDS: dict[str, dict[str, Any]] = {
    "gated": {"architecture": "gated"},
    "centred": {"centred": True},
    "b_dec stays": {"apply_b_dec_to_input": False},
    "constant norm": {"normalize_activations": "constant_norm_rescale"},
    "layer norm": {"normalize_activations": "layer_norm"},
    "centred constant norm": {
        "centred": True,
        "normalize_activations": "constant_norm_rescale",
        "apply_b_dec_to_input": False,
        "architecture": "jumprelu",
    },
    "topk by decoder norm": {"architecture": "topk", "rescale_acts_by_decoder_norm": True},
    "gated layer norm": {"architecture": "gated", "normalize_activations": "layer_norm"},
}


@pytest.mark.parametrize("component", names())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [adapted.FEATURES, None], ids=["some", "all"])
def test_every_kind_of_sae_equals_the_full_sae(
    kind: str, component: str, features: list[int] | None, shelf: Path
) -> None:
    target = adapted.target(shelf, "blocks.2.hook_resid_pre", features=features, **KINDS[kind])
    config = adapted.adapter([target], component)
    model = adapted.adapt(adapted.network("llama"), config, random=False)
    assert torch.equal(adapted.logits(model), adapted.base_logits("llama"))
    adapted.randomise(model)
    assert adapted.relative(adapted.logits(model), adapted.base_logits("llama")) > 1e-3
    adapted.compare("llama", model, adapted.edits(config, model))


@pytest.mark.parametrize("component", names())
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk", "gated"])
def test_gradients_equal_those_through_the_full_sae(
    component: str, architecture: str, shelf: Path
) -> None:
    """Two targets, the second reads what the first wrote: gradients pass through its encoder."""
    hooks = ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out")
    config = adapted.adapter(
        [adapted.target(shelf, hook, architecture) for hook in hooks], component
    )
    model = adapted.adapt(adapted.network("gemma2"), config)
    slow = adapted.network("gemma2")
    twin = copy.deepcopy(model)
    with torch.enable_grad():
        adapted.logits(model).square().mean().backward()
        with full_sae.installed(slow, adapted.edits(config, twin)):
            adapted.logits(slow).square().mean().backward()
    for name, parameter in adapted.parameters(model).items():
        expected = adapted.parameters(twin)[name].grad
        assert expected is not None
        assert parameter.grad is not None
        assert adapted.relative(parameter.grad, expected) < adapted.GRADIENT, name


@pytest.mark.parametrize("component", names())
def test_no_list_of_features_is_all_of_them(component: str, shelf: Path) -> None:
    found = []
    for features in (None, list(range(adapted.N_FEATURES)), list(range(95, -1, -1))):
        target = adapted.target(shelf, "blocks.1.hook_resid_post", features=features)
        model = adapted.adapt(adapted.network(), adapted.adapter([target], component))
        found.append(adapted.logits(model))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("component", names())
def test_the_order_of_features_and_targets_does_not_matter(component: str, shelf: Path) -> None:
    hooks = ["blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_post"]
    found = []
    for order, features in ((hooks, adapted.FEATURES), (hooks[::-1], adapted.FEATURES[::-1])):
        targets = [adapted.target(shelf, hook, features=features) for hook in order]
        model = adapted.adapt(adapted.network(), adapted.adapter(targets, component))
        found.append(adapted.logits(model))
    assert torch.equal(*found)


@pytest.mark.parametrize(("family", "centred"), [("gpt2", True), ("llama", False)])
def test_an_sae_of_a_centred_model_reads_less_the_mean(
    family: str, centred: bool, shelf: Path
) -> None:
    """By the SAE's metadata, where norms remove the mean anyway."""
    metadata = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    target = adapted.target(shelf, "blocks.1.hook_resid_pre", metadata=metadata)
    target["sae"]["centred"] = "auto"
    config = adapted.adapter([target])
    model = adapted.adapt(adapted.network(family), config)
    target["sae"]["centred"] = centred
    adapted.compare(family, model, adapted.edits(adapted.adapter([target]), model))


@pytest.mark.parametrize("family", adapted.FAMILIES)
@pytest.mark.parametrize("component", names())
def test_bfloat16_models(component: str, family: str, shelf: Path) -> None:
    dtype = torch.bfloat16
    targets = [
        adapted.target(shelf, "blocks.1.hook_resid_pre"),
        adapted.target(shelf, "blocks.2.hook_attn_out", apply_b_dec_to_input=False),
    ]
    config = adapted.adapter(targets, component)
    model = adapted.adapt(adapted.network(family, dtype), config, random=False)
    assert torch.equal(adapted.logits(model), adapted.base_logits(family, dtype))
    adapted.randomise(model)
    found = adapted.logits(model)
    assert found.dtype == dtype
    assert adapted.relative(found, adapted.base_logits(family, dtype)) > 0.05
    for parameter in adapted.parameters(model).values():
        assert parameter.dtype == torch.float32


@pytest.mark.parametrize("component", names())
def test_autocast_leaves_the_edit_in_float32(
    component: str, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    """What an edit does to the same values does not depend on the format around it."""
    config = adapted.adapter([adapted.target(shelf, "blocks.0.hook_resid_pre")], component)
    model = adapted.adapt(adapted.network(), config)
    changes = [adapted.change_of(model, watched)[0]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        changes.append(adapted.change_of(model, watched)[0])
    assert torch.equal(*changes)


NORMS = {
    transformers.GPT2Config: True,
    transformers.CohereConfig: True,  # a class of its own
    transformers.OlmoConfig: True,  # without weights
    transformers.LlamaConfig: False,
    transformers.Gemma2Config: False,
    transformers.Olmo2Config: False,
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", NORMS, ids=lambda kind: kind.__name__)
def test_norms_are_known_by_what_they_do(kind: type, device: str) -> None:
    config = kind(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        **({} if kind is transformers.GPT2Config else {"intermediate_size": 48}),
        **({"head_dim": 16} if kind is transformers.Gemma2Config else {}),
    )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert has_layer_norm(model, "blocks.1.hook_resid_pre") is NORMS[kind]
