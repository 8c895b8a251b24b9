"""Laws that every component obeys in every family with every kind of SAE."""

import copy
import gc
import weakref
from dataclasses import dataclass
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
from sae_lens import SAE
from torch import Tensor

EXACT = 1e-5  # float32 after four layers, relative to the largest logit
IN_SPAN = 1e-5  # x + change is rounded to float32, and the change is smaller than x
GRADIENT = 1e-4  # float32, sums over all tokens

FAMILIES = ("gpt2", "gpt_neox", "gemma2", "llama")
ARCHITECTURES = ("standard", "jumprelu", "topk")
BLIND_AT_START = {"target", "threshold", "inner", "inner_bias", "down"}
"""Parameters whose gradient is 0 as long as another one is."""
SAYS_NOTHING_AT_ZERO = {
    "scale": ("scale",),
    "bias": ("bias",),
    "lerp": ("weight",),
    "switch": ("push",),
    "mlp": ("outer", "outer_bias"),
    "lowrank": ("up",),
    "sparse": ("matrix",),
}
"""Parameters whose row of a feature, if 0, leaves that feature as it is."""


@dataclass(frozen=True)
class Case:
    component: str
    family: str
    architecture: str
    site: str

    def config(
        self,
        shelf: Path,
        site: str | None = None,
        layer: int = 1,
        features: list[int] | None = None,
        component: str | None = None,
    ) -> Any:
        hook = f"blocks.{layer}.{site or self.site}"
        width = adapted.width_at(self.family, hook)
        chosen = adapted.FEATURES if features is None else features
        target = adapted.target(shelf, hook, self.architecture, chosen, width=width)
        return adapted.adapter([target], component or self.component)

    def network(self) -> Any:
        return adapted.network(self.family)

    def base_logits(self) -> Tensor:
        return adapted.base_logits(self.family)


CASES = [
    Case(component, family, architecture, adapted.SITES[(c + f + a) % len(adapted.SITES)])
    for c, component in enumerate(names())
    for f, family in enumerate(FAMILIES)
    for a, architecture in enumerate(ARCHITECTURES)
]


@pytest.fixture(
    params=CASES, ids=lambda case: f"{case.component}-{case.family}-{case.architecture}"
)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What stood at each edited place before and after, in the order of edits."""
    from cleansteer.adapters import layer

    seen: list[tuple[Tensor, Tensor]] = []
    edited = layer.edited

    def watching(values: Tensor, part: Any, component: Any) -> Tensor:
        result = edited(values, part, component)
        seen.append((values.detach().clone(), result.detach().clone()))
        return result

    monkeypatch.setattr(layer, "edited", watching)
    return seen


def test_identity_at_initialisation(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf), random=False)
    assert torch.equal(adapted.logits(model), case.base_logits())


def test_equals_the_full_sae(case: Case, shelf: Path) -> None:
    for site in adapted.SITES:
        config = case.config(shelf, site)
        model = adapted.adapt(case.network(), config)
        found = adapted.logits(model)
        assert adapted.relative(found, case.base_logits()) > 1e-3
        slow = case.network()
        with full_sae.installed(slow, adapted.edits(config, model)):
            assert adapted.relative(found, adapted.logits(slow)) < EXACT, site


def test_only_allowed_features_are_edited(
    case: Case, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    config = case.config(shelf)
    model = adapted.adapt(case.network(), config)
    change, _ = change_of(model, watched)
    rows = decoder_rows(config)
    rest = change - change @ torch.linalg.pinv(rows) @ rows
    assert change.abs().max() > 0.01
    assert rest.abs().max() < IN_SPAN * change.abs().max()


def test_an_allowed_feature_without_weights_is_left_alone(
    case: Case, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    config = case.config(shelf)
    model = adapted.adapt(case.network(), config)
    for name, parameter in adapted.parameters(model).items():
        if name.rpartition(".")[2] in SAYS_NOTHING_AT_ZERO[case.component]:
            parameter[0] = 0  # of feature 0, which always fires
    change, _ = change_of(model, watched)
    by_feature = change @ torch.linalg.pinv(decoder_rows(config))
    assert by_feature[:, 0].abs().max() < IN_SPAN * by_feature.abs().max()
    assert (by_feature[:, 1:].abs().amax(dim=0) > 0.01).any()


def change_of(model: PeftModel, watched: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What one edit adds, ``[context x token, d]``, in float64, and what it reads."""
    watched.clear()
    adapted.logits(model)
    ((before, after),) = watched
    return (after.double() - before.double()).flatten(0, -2), before


def decoder_rows(config: Any) -> Tensor:
    (target,) = config.targets
    sae = SAE.load_from_disk(target["sae"]["path"])
    return sae.W_dec.detach()[target["features"]].double()


def test_only_adapter_weights_have_gradients_and_move(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf))
    own = adapted.parameters(model)
    before = copy.deepcopy(model)
    with torch.enable_grad():
        adapted.logits(model).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name in own), name
        if name in own:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name)) == (name not in own), name
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before.get_buffer(name)), name


def test_training_can_start(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf), random=False)
    with torch.enable_grad():
        adapted.logits(model).square().mean().backward()
    for name, parameter in adapted.parameters(model).items():
        assert parameter.grad is not None, name
        moves = bool(parameter.grad.abs().max() > 0)
        assert moves == (name.rpartition(".")[2] not in BLIND_AT_START), name


def test_saved_and_loaded_exactly(case: Case, shelf: Path, tmp_path: Path) -> None:
    config = case.config(shelf)
    model = adapted.adapt(case.network(), config)
    expected = adapted.logits(model)
    model.save_pretrained(tmp_path)
    for name in ("default", "another"):
        loaded = PeftModel.from_pretrained(case.network(), tmp_path, adapter_name=name)
        assert torch.equal(adapted.logits(loaded), expected), name
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    second = adapted.adapt(case.network(), config, random=False)
    second.load_adapter(tmp_path, "beside")
    assert torch.equal(adapted.logits(second), case.base_logits())
    second.set_adapter("beside")
    assert torch.equal(adapted.logits(second), expected)
    second.save_pretrained(tmp_path / "again")
    again = PeftModel.from_pretrained(case.network(), tmp_path / "again" / "beside")
    assert torch.equal(adapted.logits(again), expected)


def test_disabled_exactly(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf))
    expected = adapted.logits(model)
    with model.disable_adapter():
        assert torch.equal(adapted.logits(model), case.base_logits())
    assert torch.equal(adapted.logits(model), expected)


def test_unloaded_without_a_trace(case: Case, shelf: Path) -> None:
    base = case.network()
    modules = dict(base.named_modules())
    parameters = dict(base.named_parameters())
    model = adapted.adapt(base, case.config(shelf))
    assert not torch.equal(adapted.logits(model), case.base_logits())
    unloaded = model.unload()
    assert unloaded is base
    assert torch.equal(adapted.logits(base), case.base_logits())
    assert adapted.hooks_of(base) == []
    assert dict(base.named_modules()) == modules
    assert all(base.get_parameter(name) is kept for name, kept in parameters.items())
    assert len(dict(base.named_parameters())) == len(parameters)
    assert not hasattr(base, "peft_config")


def test_two_adapters_are_independent(case: Case, shelf: Path) -> None:
    number = CASES.index(case)
    first = case.config(shelf)
    second = case.config(
        shelf,
        layer=1 + number % 2,  # at the same place, or a layer later
        features=[5, 11, 40, 91],
        component=names()[(names().index(case.component) + 1) % len(names())],
    )
    alone = [adapted.adapt(case.network(), config) for config in (first, second)]
    expected = [adapted.logits(model) for model in alone]
    model = adapted.adapt(case.network(), first)
    model.add_adapter("second", copy.deepcopy(second))
    adapted.randomise(model, "second")
    assert torch.equal(adapted.logits(model), expected[0])
    for name, value in (("second", expected[1]), ("default", expected[0])):
        model.set_adapter(name)
        assert torch.equal(adapted.logits(model), value)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trained == adapted.parameters(model, name).keys()
    one, other = adapted.edits(first, alone[0]), adapted.edits(second, alone[1])
    for order, edits in (
        (["default", "second"], one + other),
        (["second", "default"], other + one),
    ):
        model.base_model.set_adapter(order)
        compare(case.family, model, edits)
    model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.equal(adapted.logits(model), expected[1])
    assert not adapted.parameters(model, "default")


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
            change, read = change_of(adapted.adapt(base, config), watched)
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
    compare(family, model, edits)
    model.add_adapter("later", later)
    adapted.randomise(model, "later", seed=6)
    model.base_model.set_adapter(["default", "later"])
    compare(family, model, edits + adapted.edits(later, model, "later"))
    model.set_adapter("later")
    compare(family, model, adapted.edits(later, model, "later"))
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


def compare(family: str, model: PeftModel, edits: list[full_sae.Edit]) -> None:
    slow = adapted.network(family)
    with full_sae.installed(slow, edits):
        assert adapted.relative(adapted.logits(model), adapted.logits(slow)) < EXACT


KINDS: dict[str, dict[str, Any]] = {
    "gated": {"architecture": "gated"},
    "centred": {"centred": True},
    "b_dec stays": {"apply_b_dec_to_input": False},
    "constant norm": {"normalize_activations": "constant_norm_rescale"},
    "layer norm": {"normalize_activations": "layer_norm"},
    "folded average": {"normalize_activations": "expected_average_only_in"},
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
    compare("llama", model, adapted.edits(config, model))


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
        assert adapted.relative(parameter.grad, expected) < GRADIENT, name


@pytest.mark.parametrize("component", names())
def test_no_list_of_features_is_all_of_them(component: str, shelf: Path) -> None:
    found = []
    for features in (None, list(range(adapted.N_FEATURES)), list(range(95, -1, -1))):
        target = adapted.target(shelf, "blocks.1.hook_resid_post", features=features)
        model = adapted.adapt(adapted.network(), adapted.adapter([target], component))
        found.append(adapted.logits(model))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("component", names())
def test_autocast_leaves_the_edit_in_float32(
    component: str, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    """What an edit does to the same values does not depend on the format around it."""
    config = adapted.adapter([adapted.target(shelf, "blocks.0.hook_resid_pre")], component)
    model = adapted.adapt(adapted.network(), config)
    changes = [change_of(model, watched)[0]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        changes.append(change_of(model, watched)[0])
    assert torch.equal(*changes)


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
    compare(family, model, adapted.edits(adapted.adapter([target]), model))


def test_a_model_without_values_leaves_the_sae_its_own(shelf: Path) -> None:
    """Where the model is on the meta device, a slice cannot follow it there and come back."""
    config = adapted.adapter([adapted.target(shelf, "blocks.1.hook_resid_pre")])
    model = adapted.adapt(adapted.network().to("meta"), config, random=False)
    (layer,) = adapted.layers(model)
    for buffer in layer.slice_entry["default"].buffers():
        assert buffer.device.type == "cpu"


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
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
        torch.testing.assert_close(plain, again, rtol=GRADIENT, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
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
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_the_edited_ones(family: str, site: str, shelf: Path) -> None:
    config = adapted.adapter([adapted.target(shelf, f"blocks.1.{site}")])
    model = adapted.adapt(adapted.network(family), config)
    slow = adapted.network(family)
    found = model(adapted.TOKENS, output_hidden_states=True).hidden_states
    with full_sae.installed(slow, adapted.edits(config, model)):
        expected = slow(adapted.TOKENS, output_hidden_states=True).hidden_states
    assert len(found) == len(expected) == families.LAYERS + 1
    for number in range(2, len(expected)):
        assert adapted.relative(found[number], expected[number]) < EXACT, number


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


@pytest.mark.parametrize("component", names())
def test_the_order_of_features_and_targets_does_not_matter(component: str, shelf: Path) -> None:
    hooks = ["blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_post"]
    found = []
    for order, features in ((hooks, adapted.FEATURES), (hooks[::-1], adapted.FEATURES[::-1])):
        targets = [adapted.target(shelf, hook, features=features) for hook in order]
        model = adapted.adapt(adapted.network(), adapted.adapter(targets, component))
        found.append(adapted.logits(model))
    assert torch.equal(*found)


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
