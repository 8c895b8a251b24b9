"""Transcoders and skip-transcoders: what they read and write, against hooks on untouched modules."""

from pathlib import Path
from typing import Any

import cleansteer as cs
import numpy as np
import pytest
import tiny
import torch
import world
from cleansteer.adapters.opening import open_at, provided
from cleansteer.adapters.places import decoder_layers
from cleansteer.benchmarks.tiny import VOCABULARY, tiny_network, tiny_tokenizer
from cleansteer.core.errors import InputError
from cleansteer.core.fitness import check_sae
from cleansteer.core.models import LanguageModel, load_model, wrap_model
from cleansteer.core.saes import Dictionary, open_sae, wrap_sae
from cleansteer.core.settings import SaeSetting, SteeringSetting, read_setting
from cleansteer.core.sites import input_hook
from cleansteer.features.sweep import measure_features
from cleansteer.steering_eval.choice import plan_all
from cleansteer.steering_eval.collateral import choose_panel
from cleansteer.steering_eval.evaluation import Evaluator
from numpy.typing import NDArray
from sae_lens import SAE
from torch import Tensor, nn

KINDS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
FAMILIES = ("gemma3_text", "gemma2", "llama", "qwen3", "gpt2")
LAYER, LAST = 1, 3
N_FEATURES, N_CONTEXTS, LENGTH = 40, 20, 8
PUSH = 2.0


def transcoder(kind: str, width: int, hook: str = "mlp.hook_in", **metadata: Any) -> Any:
    """A random one of a layer's MLP."""
    names = {
        "hook_name": f"blocks.{LAYER}.{hook}",
        "hook_name_out": f"blocks.{LAYER}.hook_mlp_out",
        **metadata,
    }
    config = {
        "architecture": kind,
        "d_in": width,
        "d_out": width,
        "d_sae": N_FEATURES,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {key: value for key, value in names.items() if value is not None},
    }
    made: Any = SAE.from_dict(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        parameter.data = (
            torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
        )
        if name == "threshold":
            parameter.data = parameter.data.abs()
        if name == "W_dec":
            parameter.data /= parameter.data.norm(dim=1, keepdim=True)
    return made.eval()


def downstream(model: LanguageModel) -> Dictionary:
    hook = f"blocks.{LAST}.hook_resid_post"
    return tiny.dictionary("standard", model, hook, n_features=N_FEATURES, width=model.width)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> tuple[LanguageModel, nn.Module]:
    """A model, and an untouched copy of it."""
    return wrap_model(tiny_network(request.param), tiny_tokenizer()), tiny_network(request.param)


def contexts() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, VOCABULARY, (N_CONTEXTS, LENGTH), generator=generator)


@torch.no_grad()
def mlp_input(network: nn.Module, tokens: Tensor) -> Tensor:
    """What the untouched layer's MLP module is given."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, options: Any) -> None:
        seen.append((inputs[0] if inputs else options["hidden_states"]).clone())

    _, layers = decoder_layers(network)
    handle = layers[LAYER].mlp.register_forward_pre_hook(keep, with_kwargs=True)
    network(tokens, use_cache=False)
    handle.remove()
    return seen[0].view(*tokens.shape, -1)


@torch.no_grad()
def steered_logits(network: nn.Module, tokens: Tensor, push: Tensor) -> Tensor:
    """Final-token logits with a push added to what the MLP adds to the stream there."""
    _, layers = decoder_layers(network)
    layer: Any = layers[LAYER]
    module = getattr(layer, "post_feedforward_layernorm", layer.mlp)

    def change(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, -1] += push
        return changed

    handle = module.register_forward_hook(change)
    logits = network(tokens, use_cache=False).logits[:, -1]
    handle.remove()
    return logits


def by_hand(sae: Any, values: Tensor) -> NDArray[np.float64]:
    """The encoder written out: ReLU, or what lies above the threshold."""
    before = values.double() @ sae.W_enc.double() + sae.b_enc.double()
    if hasattr(sae, "threshold"):
        return torch.where(before > sae.threshold.double(), before, 0).relu().detach().numpy()
    return before.relu().detach().numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("full", [False, True])
def test_features_fire_by_what_the_mlp_reads_and_steer_what_it_writes(
    pair: tuple[LanguageModel, nn.Module], kind: str, full: bool, tmp_path: Any
) -> None:
    model, network = pair
    tokens = contexts()
    sae = transcoder(kind, model.width)
    primary = wrap_sae(sae, SaeSetting(path="transcoder"), model)
    below = downstream(model)
    steering = SteeringSetting(contexts_per_type=4, panel_size=N_FEATURES, alpha=1.0)
    measured = measure_features(model, primary, below, tokens, steering)
    expected = by_hand(sae, mlp_input(network, tokens))
    assert 0.02 < (expected > 0).mean() < 0.9
    found = measured.final_activations.toarray()
    np.testing.assert_allclose(found, expected[:, -1], atol=2e-5 * expected.max())
    frequency = (expected > 1e-6).mean(axis=(0, 1))
    np.testing.assert_allclose(measured.table["token_act_freq"], frequency, atol=0.01)

    panel = choose_panel(measured.downstream, N_FEATURES)
    evaluator = Evaluator(model, primary, below, panel, steering, full=full)
    assert evaluator.resumed != full
    labels = evaluator.evaluate(
        plan_all(np.arange(3), len(tokens)),
        tokens,
        measured.final_activations,
        measured.table,
        PUSH,
        tmp_path,
    )
    with torch.no_grad():
        clean = network(tokens, use_cache=False).logits[:, -1]
    for row, (_, label) in zip(sae.W_dec[:3].detach(), labels.iterrows(), strict=True):
        change = (steered_logits(network, tokens, PUSH * row) - clean).double()
        if model.vocabulary_centred:
            change -= change.mean(dim=-1, keepdim=True)
        assert label["effect_l2"] == pytest.approx(float(change.norm(dim=-1).mean()), rel=2e-4)


def test_prompts_are_pushed_by_what_is_read(pair: tuple[LanguageModel, nn.Module]) -> None:
    """The push is a multiple of the largest activation at the prompt's last token."""
    model, network = pair
    sae = transcoder("transcoder", model.width)
    primary = wrap_sae(sae, SaeSetting(path="transcoder"), model)
    below, steering = downstream(model), SteeringSetting(panel_size=N_FEATURES)
    measured = measure_features(model, primary, below, contexts(), steering)
    panel = choose_panel(measured.downstream, N_FEATURES)
    prompt = contexts()[:1]
    features = np.arange(4)
    evaluator = Evaluator(model, primary, below, panel, steering)
    found = evaluator.prompt_scores(features, prompt, 3.0)["delta_token_confidence"]
    largest = float(by_hand(sae, mlp_input(network, prompt))[0, -1].max())
    assert largest > 0
    with torch.no_grad():
        clean = network(prompt, use_cache=False).logits[:, -1].log_softmax(dim=-1).max()
    pushes = 3.0 * largest * sae.W_dec[:4].detach()
    steered = [steered_logits(network, prompt, push).log_softmax(dim=-1).max() for push in pushes]
    expected = [float(clean - peak) for peak in steered]
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-3)


def test_decoder_statistics_are_of_what_is_written(pair: tuple[LanguageModel, nn.Module]) -> None:
    model, _ = pair
    sae = transcoder("transcoder", model.width)
    primary = wrap_sae(sae, SaeSetting(path="transcoder"), model)
    measured = measure_features(model, primary, downstream(model), contexts(), SteeringSetting())
    footprint = (sae.W_dec.detach() @ model.processed_unembedding()).norm(dim=1)
    np.testing.assert_allclose(measured.table["direct_logit_l2"], footprint, rtol=1e-4)
    np.testing.assert_allclose(measured.table["decoder_norm"], 1.0, rtol=1e-5)
    (written,) = model.read(contexts(), [primary.site])
    assert measured.residual_norm == pytest.approx(
        float(written[:, 1:].norm(dim=-1).median()), rel=0.05
    )


def test_what_is_read_before_the_norms_weight(pair: tuple[LanguageModel, nn.Module]) -> None:
    """``ln2.hook_normalized``: the stream over its root mean square, LayerNorm's without its mean."""
    model, network = pair
    sae = transcoder("transcoder", model.width, "ln2.hook_normalized")
    primary = wrap_sae(sae, SaeSetting(path="transcoder"), model)
    (found,) = model.read(contexts(), [primary.source])
    _, layers = decoder_layers(network)
    layer: Any = layers[LAYER]
    names = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
    norm = next(getattr(layer, name) for name in names if hasattr(layer, name))
    seen: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        network(contexts(), use_cache=False)
    handle.remove()
    stream = seen[0].view_as(found)
    if isinstance(norm, nn.LayerNorm):
        stream = stream - stream.mean(dim=-1, keepdim=True)
    expected = stream / stream.square().mean(dim=-1, keepdim=True).sqrt()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("hook", "module", "expected"),
    [
        ("blocks.3.hook_mlp_in", "model.layers.3.pre_feedforward_layernorm.output", "mlp.hook_in"),
        ("blocks.3.hook_mlp_in", "model.layers.3.mlp.input", "mlp.hook_in"),
        ("blocks.3.hook_mlp_in", None, "hook_resid_mid"),
        ("blocks.3.mlp.hook_in", None, "mlp.hook_in"),
        ("blocks.3.ln2.hook_normalized", None, "ln2.hook_normalized"),
        ("blocks.3.hook_resid_mid", None, "hook_resid_mid"),
    ],
)
def test_the_place_that_is_read(hook: str, module: str | None, expected: str) -> None:
    assert input_hook(hook, module) == f"blocks.3.{expected}"


def test_gemma_scope_2_reads_what_its_module_name_says(
    pair: tuple[LanguageModel, nn.Module],
) -> None:
    """SAELens calls the MLP's input ``hook_mlp_in``, TransformerLens what the norm before it reads."""
    model, network = pair
    module = f"model.layers.{LAYER}.pre_feedforward_layernorm.output"
    sae = transcoder("jumprelu_skip_transcoder", model.width, "hook_mlp_in", hf_hook_name=module)
    primary = wrap_sae(sae, SaeSetting(path="transcoder"), model)
    (found,) = model.read(contexts(), [primary.source])
    torch.testing.assert_close(found, mlp_input(network, contexts()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hook_name_out": None}, "does not say where it writes"),
        ({"hook_name_out": f"blocks.{LAYER}.mlp.hook_in"}, "is not supported"),
        (
            {"hook_name_out": "blocks.0.hook_mlp_out"},
            "writes blocks.0.hook_mlp_out, before",
        ),
        ({"hook_name": "blocks.9.mlp.hook_in"}, "the model has layers 0 to 3"),
        ({"hook_name": f"blocks.{LAYER}.mlp.hook_post"}, "is not supported"),
    ],
)
def test_places_that_are_refused(changes: dict[str, Any], words: str) -> None:
    model = wrap_model(tiny_network("llama"), tiny_tokenizer())
    sae = transcoder("transcoder", model.width, **changes)
    with pytest.raises(InputError, match=words):
        wrap_sae(sae, SaeSetting(path="transcoder"), model)


def test_other_widths_and_centring_are_refused() -> None:
    model = wrap_model(tiny_network("llama"), tiny_tokenizer())
    sae = transcoder("transcoder", model.width + 1)
    assert check_sae(sae, "transcoder")
    with pytest.raises(InputError, match=f"the model has {model.width}"):
        wrap_sae(sae, SaeSetting(path="transcoder"), model)
    sae = transcoder("transcoder", model.width)
    with pytest.raises(InputError, match="centred = true"):
        wrap_sae(sae, SaeSetting(path="transcoder", centred=True), model)


def test_adapters_take_no_transcoder(tmp_path: Path) -> None:
    """From a directory or in memory: they add to what they read."""
    made = transcoder("jumprelu_skip_transcoder", 16)
    made.save_model(tmp_path / "transcoder")
    named = SaeSetting(path="transcoder")
    with pytest.raises(InputError, match="transcoder is a transcoder: its features read one place"):
        open_sae(named, tmp_path)
    hook = f"blocks.{LAYER}.hook_mlp_out"
    with provided({hook: made}), pytest.raises(InputError, match="is a transcoder"):
        open_at(hook, named, tmp_path)


def test_collateral_is_read_in_no_transcoder(tmp_path: Path) -> None:
    setting = world.build(tmp_path, "jumprelu")
    loaded = read_setting(setting)
    model = load_model(loaded)
    made = transcoder("transcoder", model.width)
    made.save_model(tmp_path / "transcoder")
    changes = {"downstream_sae.path": str(tmp_path / "transcoder")}
    study = cs.open_study(setting, changes=changes, run=tmp_path / "run", progress=False)
    with pytest.raises(InputError, match=r"downstream SAE .* is a transcoder"):
        study.features  # noqa: B018
