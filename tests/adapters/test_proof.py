"""An adapter edits what was screened, on every kind of model, or it is refused."""

import copy
from pathlib import Path
from typing import Any

import adapted
import exported
import families
import pytest
import tiny
import torch
from cleansteer.adapters import exports
from cleansteer.adapters.places import find_place
from cleansteer.benchmarks.places import HOOKS, sweep
from cleansteer.benchmarks.tiny import tiny_network
from cleansteer.core.errors import InputError
from cleansteer.core.models import wrap_model
from cleansteer.core.settings import SaeSetting
from cleansteer.core.sites import parse_site
from cleansteer.core.small import WIDTH
from torch import Tensor, nn

TOKENS = torch.arange(1, 17).reshape(2, 8)
MULTIPLIED = {"granite": {"residual_multiplier": 0.22}, "granitemoe": {"residual_multiplier": 17.0}}
SOME = ("cohere", "falcon", "gemma3_text", "glm4", "gptj", "minicpm3", "mixtral", "olmo2", "opt")
OTHERS = {
    "opt": {"mlp": "refused", "attention": "half"},
    "cohere": {"heads": "half"},
    "minicpm3": {"heads": "half"},
}
"""Places that are not right, and those of which no one else says what stands there."""
CLOSE = 1e-5  # float32, four layers


CASES = [(family, torch.float32) for family in families.CONFIGURATIONS]
CASES += [(family, torch.bfloat16) for family in ("gpt_neox", "gemma2")]


@pytest.mark.parametrize(("family", "dtype"), CASES)
def test_an_adapter_sees_what_the_evaluator_reads(family: str, dtype: torch.dtype) -> None:
    network = families.network(family, dtype)
    model = wrap_model(copy.deepcopy(network), tiny.tokenizer())
    tokens = adapted.TOKENS
    for layer in (0, families.LAYERS - 1):
        for name, hook in HOOKS.items():
            place = find_place(network, f"blocks.{layer}.{hook}")
            assert (place.name, place.factor) == (name, 1.0)
            (expected,) = model.read(tokens, [parse_site(f"blocks.{layer}.{hook}", 4)])
            found = families.read_all(network, tokens, f"blocks.{layer}.{hook}")
            module = place.module_in(network.get_submodule(place.layer))
            assert torch.equal(seen_at(network, module, place.at_input, tokens), found)
            exact = {torch.float32: CLOSE, torch.bfloat16: 0.02}[dtype]
            assert adapted.relative(found.float(), expected.float()) < exact


def seen_at(network: Any, module: nn.Module, at_input: bool, tokens: Tensor) -> Tensor:
    seen: list[Tensor] = []
    if at_input:
        handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    else:
        handle = module.register_forward_hook(
            lambda _, given, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
    network(tokens, use_cache=False)
    handle.remove()
    return seen[0].clone()


@pytest.mark.parametrize("model_type", [*MULTIPLIED, *SOME])
def test_places_of_many_classes_are_right_or_refused(model_type: str) -> None:
    row = sweep(model_type, **MULTIPLIED.get(model_type, {}))
    others = OTHERS.get(model_type, {})
    for name, told in row.found.items():
        assert told.split()[0] == others.get(name, "right"), (name, told)


@pytest.mark.parametrize("model_type", MULTIPLIED)
@pytest.mark.parametrize("site", ["hook_attn_out", "hook_mlp_out"])
def test_where_the_block_multiplies_an_edit_is_what_arrives(
    model_type: str, site: str, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    """The push of the last layer's MLP moves its exit by itself; what is read is what is added."""
    network: Any = tiny_network(model_type, **MULTIPLIED[model_type])
    hook = f"blocks.3.{site}"
    config = adapted.adapter([adapted.target(shelf, hook, width=WIDTH)], "bias")
    untouched = copy.deepcopy(network)
    judge = wrap_model(copy.deepcopy(network), tiny.tokenizer())
    (expected,) = judge.read(TOKENS, [parse_site(hook, 4)])
    model = adapted.adapt(network, config, random=False)
    assert torch.equal(model(TOKENS).logits, untouched(TOKENS).logits)
    adapted.randomise(model)
    watched.clear()
    found = model(TOKENS, use_cache=False).logits
    ((before, after),) = watched
    assert adapted.relative(before, expected) < CLOSE
    (push,) = (after - before)[0, :1]
    multiplier = MULTIPLIED[model_type]["residual_multiplier"]
    layer = untouched.model.layers[3]
    if site == "hook_attn_out":
        layer.self_attn.register_forward_hook(
            lambda _, given, out: (out[0] + push / multiplier, *out[1:])
        )
    else:
        layer.register_forward_hook(
            lambda _, given, out: (
                (out[0] + push, *out[1:]) if isinstance(out, tuple) else out + push
            )
        )
    assert adapted.relative(found, untouched(TOKENS, use_cache=False).logits) < 10 * CLOSE
    assert adapted.relative(found, judge.bridge(TOKENS)) > 0.01


ODD = {
    "a multiplier for each dimension": lambda entry, leaving: (
        entry + (leaving - entry) * torch.linspace(0.9, 1.1, leaving.shape[-1])
    ),
    "a norm behind both": lambda entry, leaving: (
        entry + (leaving - entry) / (leaving - entry).norm(dim=-1, keepdim=True)
    ),
    "a multiple of the whole stream": lambda entry, leaving: 1.05 * leaving,
    "a little noise": lambda entry, leaving: leaving + 0.003 * torch.sin(40 * leaving),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi"])
def test_other_blocks_are_refused_inside_and_right_outside(odd: str, family: str) -> None:
    network = families.network(family, torch.float32)
    layer: Any = families.layers_of(network)[1]
    inner = layer.forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = inner(hidden_states, *args, **kwargs)
        if isinstance(out, tuple):
            return (ODD[odd](hidden_states, out[0]), *out[1:])
        return ODD[odd](hidden_states, out)

    layer.forward = forward
    for site in ("hook_attn_out", "hook_mlp_out"):
        with pytest.raises(InputError, match=f"blocks.1.{site}: what attention and MLP"):
            find_place(network, f"blocks.1.{site}")
        find_place(network, f"blocks.2.{site}")
    for site in ("hook_resid_pre", "hook_resid_post", "attn.hook_z"):
        find_place(network, f"blocks.1.{site}")


def test_heads_behind_which_something_else_stands_are_refused() -> None:
    network: Any = families.network("llama", torch.float32)
    attention = network.model.layers[1].self_attn
    attention.register_forward_hook(lambda _, given, out: (2 * out[0], *out[1:]))
    with pytest.raises(InputError, match="no output projection of a LlamaDecoderLayer"):
        find_place(network, "blocks.1.attn.hook_z")


def test_a_stream_that_changes_between_layers_is_refused() -> None:
    network: Any = families.network("llama", torch.float32)
    network.model.layers[2].register_forward_pre_hook(lambda _, given: (2 * given[0], *given[1:]))
    for hook in ("blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"):
        with pytest.raises(InputError, match="not what enters the next layer"):
            find_place(network, hook)
    find_place(network, "blocks.1.hook_resid_pre")


def test_a_layer_that_runs_twice_is_refused() -> None:
    network: Any = families.network("gpt2", torch.float32)
    network.transformer.h[2].forward = lambda values, *args, **kwargs: network.transformer.h[1](
        values, *args, **kwargs
    )
    with pytest.raises(InputError, match="once"):
        find_place(network, "blocks.1.hook_resid_pre")


def test_the_proof_leaves_the_model_as_it_was() -> None:
    network = families.network("gpt2", torch.float32)
    network.train()
    network.transformer.h[0].eval()  # type: ignore[union-attr]
    modes = [module.training for module in network.modules()]
    for hook in HOOKS.values():
        find_place(network, f"blocks.1.{hook}")
    assert [module.training for module in network.modules()] == modes
    assert adapted.hooks_of(network) == []


def test_what_is_refused_changes_nothing(shelf: Path) -> None:
    network = tiny_network("bloom")
    config = adapted.adapter([adapted.target(shelf, "blocks.1.hook_mlp_out")])
    names = [name for name, _ in network.named_modules()]
    with pytest.raises(InputError, match="a BloomBlock give is not what the layer adds"):
        adapted.adapt(network, config)
    assert [name for name, _ in network.named_modules()] == names
    assert adapted.hooks_of(network) == []


@pytest.mark.parametrize("family", [*families.CONFIGURATIONS, *MULTIPLIED, "glm4", "bloom"])
def test_a_model_without_values_has_the_same_places(family: str, tmp_path: Path) -> None:
    """By a sketch of it, as for an export."""
    if family in families.CONFIGURATIONS:
        network: Any = families.network(family, torch.float32)
    else:
        network = tiny_network(family, **MULTIPLIED.get(family, {}))
    network.config.save_pretrained(tmp_path)
    host = exports.open_host(str(tmp_path), Path.cwd())
    for hook in HOOKS.values():
        found = []
        for each in (network, host.network):
            try:
                found.append(find_place(each, f"blocks.2.{hook}"))
            except InputError as error:
                found.append(str(error))
        assert found[0] == found[1]


def test_lm_evals_row_is_in_units_of_what_the_module_gives(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: Any = tiny_network("granite", **MULTIPLIED["granite"])
    network.save_pretrained(tmp_path / "model")
    folder = exported.sae_folder(shelf)
    published = exported.publish(monkeypatch, folder)
    host = exports.open_host(str(tmp_path / "model"), Path.cwd())
    setting = SaeSetting(hook="blocks.2.hook_mlp_out", **published)
    edits = exports.feature_edits([7], 3.0, setting, Path.cwd(), host)
    exports.write_edits("lm-eval", host, edits, tmp_path / "x.csv", {})
    hookpoint, vector = exported.lm_eval_push(tmp_path / "x.csv")
    assert hookpoint == "layers.2.mlp"
    assert torch.allclose(0.22 * vector, edits[0].vector, atol=1e-6)
