"""Models: the residual stream at every site, unembeddings, fingerprints, and a bridge unchanged."""

import copy
import itertools
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import families
import minimal
import oracle
import pytest
import tiny
import torch
from cleansteer.benchmarks.tiny import tiny_network
from cleansteer.core.errors import InputError
from cleansteer.core.models import LanguageModel, load_model, wrap_model
from cleansteer.core.networks import fingerprint_tensors, quiet_libraries
from cleansteer.core.sites import Site, parse_site
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging as transformers_logging

SINGLE = 1e-5  # float32: products of 32 entries in another order
ROUNDED = 1e-6  # float64, but Hugging Face's RMSNorms round to float32
LAYERS = 3
SHAPE = families.SHAPE | {
    "num_hidden_layers": LAYERS,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "attn_implementation": "eager",
}


def gpt2() -> nn.Module:
    return tiny.network(n_layer=LAYERS)


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2))


def neox() -> nn.Module:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE))


def gemma2() -> nn.Module:
    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8))


FAMILIES = (gpt2, llama, neox, gemma2)
Family = Callable[[], nn.Module]


def build(family: Family, processing: str = "default") -> LanguageModel:
    torch.manual_seed(0)
    network = family()
    for name, parameter in network.named_parameters():
        if "norm" in name or "ln_" in name:  # norms that are not the identity
            parameter.data += 0.3 * torch.randn_like(parameter)
    return wrap_model(network, tiny.tokenizer(), processing)


def every_site(n_layers: int = LAYERS) -> list[Site]:
    hooks = [f"blocks.{i}.hook_resid_{end}" for i in range(n_layers) for end in ("pre", "post")]
    return [parse_site(hook, n_layers) for hook in hooks]


def hooked(model: LanguageModel, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """The stream at every hook, by TransformerLens, from one full pass."""
    seen: dict[str, torch.Tensor] = {}

    def keeper(name: str) -> Callable[[torch.Tensor, object], None]:
        return lambda value, hook: seen.__setitem__(name, value.clone())

    names = [site.hook for site in every_site(model.n_layers)]
    model.bridge.run_with_hooks(tokens, fwd_hooks=[(name, keeper(name)) for name in names])
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_residuals_equal_hooks_at_every_site_alone_and_together(family: Family) -> None:
    model, tokens = build(family), tiny.contexts(6)
    expected = hooked(model, tokens)
    sites = every_site()
    chosen = [*([site] for site in sites), *itertools.permutations(sites, 2), sites, sites[::-1]]
    for some in chosen:
        found = model.read(tokens, list(some))
        assert len(found) == len(some)
        for site, residual in zip(some, found, strict=True):
            assert torch.equal(residual, expected[site.hook]), (site, some)


@pytest.mark.parametrize("family", FAMILIES)
def test_residuals_equal_hugging_face(family: Family) -> None:
    model, tokens = build(family), tiny.contexts(6)
    network = family()
    network.load_state_dict(model.parameters, strict=False)  # tied weights have one name
    hidden = network.eval()(tokens, output_hidden_states=True).hidden_states
    found = model.read(tokens, [Site("", layer) for layer in range(LAYERS)])
    for layer, residual in enumerate(found):
        torch.testing.assert_close(residual, hidden[layer], rtol=SINGLE, atol=SINGLE)


def test_one_place_has_two_names() -> None:
    sites = {site.hook: site.layer for site in every_site()}
    assert sites["blocks.0.hook_resid_post"] == sites["blocks.1.hook_resid_pre"] == 1
    assert sites["blocks.2.hook_resid_post"] == LAYERS
    assert sorted(set(sites.values())) == list(range(LAYERS + 1))


@pytest.mark.parametrize("hook", ["hook_embed", "blocks.x.", "blocks.0.hook_q", ""])
def test_other_hooks_are_refused(hook: str) -> None:
    message = r"is not supported; expected blocks\.L\. followed by one of hook_resid_pre, attn"
    with pytest.raises(InputError, match=message):
        parse_site(hook, LAYERS)


def test_layers_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="the model has layers 0 to 2"):
        parse_site("blocks.3.hook_resid_pre", LAYERS)


def test_layers_above_the_last_site_are_not_run() -> None:
    model = build(gpt2)
    ran: list[int] = []

    def counter(layer: int) -> Callable[..., None]:
        return lambda *_: ran.append(layer)

    for layer, block in enumerate(model.bridge.blocks):
        block.attn.register_forward_pre_hook(counter(layer))
    for hook, layers in (
        ("blocks.1.hook_resid_pre", [0]),
        ("blocks.1.hook_resid_post", [0, 1]),
        ("blocks.2.hook_resid_post", [0, 1, 2]),
    ):
        ran.clear()
        model.read(tiny.contexts(2), [parse_site(hook, LAYERS)])
        assert ran == layers


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_leaves_the_bridge_as_it_was(family: Family) -> None:
    model, tokens = build(family), tiny.contexts(6)
    before = {name: tensor.clone() for name, tensor in model.parameters.items()}
    logits = model.bridge(tokens)
    for site in every_site():
        model.read(tokens, [site])
    assert torch.equal(model.bridge(tokens), logits)
    assert all(torch.equal(model.parameters[name], tensor) for name, tensor in before.items())
    assert not any(
        point.fwd_hooks or point._forward_hooks for point in model.bridge.hook_dict.values()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_wrapping_keeps_what_hugging_face_computes(family: Family) -> None:
    tokens = tiny.contexts(6)
    torch.manual_seed(0)
    network = family().eval()
    untouched = copy.deepcopy(network)
    model = wrap_model(network, tiny.tokenizer())
    expected = untouched(tokens).logits
    torch.testing.assert_close(model.bridge(tokens), expected, rtol=SINGLE, atol=SINGLE)
    assert model.parameters.keys() == dict(untouched.named_parameters()).keys()
    assert not any(tensor.requires_grad for tensor in model.parameters.values())


def test_a_model_that_the_bridge_computes_differently_is_refused() -> None:
    network = tiny.network(scale_attn_weights=False)
    with pytest.raises(InputError, match=r"other logits than Hugging Face \(relative difference"):
        wrap_model(network, tiny.tokenizer())


@pytest.mark.parametrize(
    ("family", "layer_norm", "soft_cap", "centred"),
    [
        (gpt2, True, None, True),
        (neox, True, None, True),
        (llama, False, None, True),
        (gemma2, False, 30.0, False),
    ],
)
def test_what_the_families_are(
    family: Family, layer_norm: bool, soft_cap: float | None, centred: bool
) -> None:
    model = build(family)
    assert (model.layer_norm, model.soft_cap) == (layer_norm, soft_cap)
    assert model.vocabulary_centred is centred
    assert build(family, "none").vocabulary_centred is False
    assert (model.n_layers, model.width, model.n_positions) == (LAYERS, tiny.WIDTH, 64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("processing", ["default", "none"])
def test_unembedding_as_the_protocol_says(family: Family, processing: str) -> None:
    model = build(family, processing)
    weight = next(
        tensor
        for name, tensor in model.parameters.items()
        if name in ("transformer.ln_f.weight", "model.norm.weight")
        or name.endswith("final_layer_norm.weight")
    )
    expected = oracle.processed_unembedding(
        model.unembedding().double().numpy(),
        (weight + 1 if family is gemma2 else weight).double().numpy(),
        layer_norm=family in (gpt2, neox),
        soft_capped=family is gemma2,
        processing=processing,
    )
    torch.testing.assert_close(
        model.processed_unembedding().double(), torch.tensor(expected), rtol=SINGLE, atol=SINGLE
    )


@pytest.mark.parametrize("family", [gpt2, llama, neox])
@pytest.mark.parametrize("processing", ["default", "none"])
def test_changes_of_the_final_norm_become_changes_of_the_compared_logits(
    family: Family, processing: str
) -> None:
    model = build(family, processing)
    seen = []
    hook = ("ln_final.hook_out", lambda value, hook: seen.append(value.clone()))
    logits = model.bridge.run_with_hooks(tiny.contexts(2), fwd_hooks=[hook])[:, -1]
    if model.vocabulary_centred:
        logits = logits - logits.mean(dim=-1, keepdim=True)
    change = (seen[0][0, -1] - seen[0][1, -1]) @ model.comparison_unembedding()
    torch.testing.assert_close(change, logits[0] - logits[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [*families.FAMILIES, families.UNKNOWN])
def test_final_norm_and_unembedding_are_hugging_faces_own(family: str) -> None:
    network = families.network(family)
    model = wrap_model(copy.deepcopy(network), tiny.tokenizer())
    head = network.lm_head
    assert torch.equal(model.unembedding(), head.weight.T)
    bias = model.unembedding_bias()
    assert (bias is None) == (head.bias is None) == (family != families.UNKNOWN)
    if bias is not None:
        assert torch.equal(bias, head.bias)
    streams: list[torch.Tensor] = []
    norm = families.final_norm_of(network)
    norm.register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0].clone()))
    logits = network(tiny.contexts(6)).logits
    normalised = model.normalise(streams[0])
    torch.testing.assert_close(normalised, norm(streams[0]), rtol=ROUNDED, atol=ROUNDED)
    found = normalised @ model.unembedding() + (0.0 if bias is None else bias)
    if model.soft_cap is not None:
        found = model.soft_cap * torch.tanh(found / model.soft_cap)
    torch.testing.assert_close(found, logits, rtol=ROUNDED, atol=ROUNDED)


def test_the_fingerprint_changes_with_one_weight_of_any_parameter() -> None:
    network = tiny.network(n_layer=2)
    parameters = dict(network.named_parameters())
    seen = {fingerprint_tensors(parameters)}
    for number, tensor in enumerate(parameters.values()):
        flat = tensor.view(-1)
        flat[(31 * number + 17) % len(flat)] += 1e-3
        seen.add(fingerprint_tensors(parameters))
    assert len(seen) == 1 + len(parameters)


def test_the_fingerprint_is_of_names_shapes_formats_and_values() -> None:
    one, other = torch.arange(6.0), torch.zeros(2)
    tensors = {"a": one, "b": other}
    same = fingerprint_tensors({"b": other.clone(), "a": one.clone()})
    assert fingerprint_tensors(tensors) == same
    for changed in (
        {"a": one, "c": other},
        {"a": one},
        {"a": one.view(2, 3), "b": other},
        {"a": one.bfloat16(), "b": other},
        {"a": other, "b": one},
        {"a": -one, "b": other},
    ):
        assert fingerprint_tensors(changed) != same


def test_large_tensors_are_sampled_over_their_whole_length() -> None:
    large = torch.zeros(1 << 20)
    before = fingerprint_tensors({"a": large})
    for part in large.split(1 << 17):
        part += 1
        after = fingerprint_tensors({"a": large})
        assert after != before
        before = after


def test_a_loaded_model_is_the_saved_one(tmp_path: Path) -> None:
    network = tiny.network()
    network.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    expected = network(tiny.contexts(4)).logits
    loaded = load_model(minimal.setting(tmp_path))
    assert loaded.fingerprint == wrap_model(network, tiny.tokenizer()).fingerprint
    torch.testing.assert_close(loaded.bridge(tiny.contexts(4)), expected, rtol=SINGLE, atol=SINGLE)
    assert loaded.tokenizer("w5 w6")["input_ids"] == [5, 6]
    rounded = load_model(minimal.setting(tmp_path).replace("model", dtype="bfloat16"))
    assert {tensor.dtype for tensor in rounded.parameters.values()} == {torch.bfloat16}
    assert rounded.fingerprint != loaded.fingerprint
    assert rounded.unembedding().dtype == torch.float32


@pytest.mark.parametrize("name", ["./nowhere", "no/such-model"])
def test_a_model_that_is_not_there_is_one_line(tmp_path: Path, name: str) -> None:
    setting = minimal.setting(tmp_path).replace("model", name=name)
    with pytest.raises(InputError, match=name.strip("./")) as caught:
        load_model(setting)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    network = tiny.network()
    network.config.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    torch.save(network.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(minimal.setting(tmp_path))


@pytest.mark.parametrize("fails", [False, True])
def test_libraries_are_only_quiet_inside(fails: bool) -> None:
    def state() -> tuple[int, bool, int]:
        return (
            transformers_logging.get_verbosity(),
            transformers_logging.is_progress_bar_enabled(),
            logging.getLogger().level,
        )

    before = state()
    try:
        with quiet_libraries():
            assert state() != before
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert state() == before


def test_nothing_is_installed_beside_a_model_that_sees_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TransformerLens' bridge would run ``pip install torchvision``, which exchanges torch."""
    commands: list[object] = []
    monkeypatch.setattr(subprocess, "check_call", lambda *given, **options: commands.append(given))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    model = wrap_model(tiny_network("gemma3"), tiny.tokenizer())
    assert model.n_layers == 4
    assert commands == []
    subprocess.check_call(["true"])
    assert commands == [(["true"],)], "left as it was"
