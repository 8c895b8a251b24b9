"""Sparse autoencoders: parts equal the whole, and each reads what it was trained on."""

from pathlib import Path

import families
import minimal
import numpy as np
import pytest
import tiny
import torch
from cleansteer.core.errors import InputError
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.saes import load_dictionary, wrap_sae
from cleansteer.core.settings import SaeSetting
from cleansteer.core.sites import Site, Stage
from dictionaries import FEATURES, HOOK, HOOK_SITE, INDEPENDENT, random_sae, residual, wrap
from sae_lens import SAE
from sae_lens.saes.sae import TrainingSAE, TrainStepInput
from transformers import LlamaConfig, LlamaForCausalLM

EXACT = 1e-12  # float64: only the order of sums differs
SINGLE = 1e-5  # float32


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny.model()


@pytest.mark.parametrize("architecture", INDEPENDENT)
def test_latents_of_the_others_do_not_depend_on_each_other(
    architecture: str, model: LanguageModel
) -> None:
    """What `independent` says: changing one latent's weights changes no other latent."""
    sae = random_sae(architecture)
    dictionary = wrap(sae, model)
    assert dictionary.independent
    before = dictionary.encode(residual(30))
    for name, tensor in sae.state_dict().items():
        if name != "b_dec":
            (tensor[:, 7] if name == "W_enc" else tensor[7]).mul_(-3)
    others = np.delete(np.arange(96), 7)
    after = dictionary.encode(residual(30))
    assert torch.equal(after[:, others], before[:, others])
    assert not torch.equal(after[:, 7], before[:, 7])


@pytest.mark.parametrize("architecture", [*INDEPENDENT, "topk"])
def test_centred_removes_the_mean_and_raw_removes_nothing(
    architecture: str, model: LanguageModel
) -> None:
    sae = random_sae(architecture, **({"k": 12} if architecture == "topk" else {}))
    raw, centred = wrap(sae, model, centred=False), wrap(sae, model, centred=True)
    x = residual(4, 3)
    assert torch.equal(raw.read(x), x)
    torch.testing.assert_close(centred.read(x).mean(dim=-1), torch.zeros(4, 3).double())
    torch.testing.assert_close(centred.read(x + 5.0), centred.read(x))
    torch.testing.assert_close(centred.read(centred.read(x)), centred.read(x))
    torch.testing.assert_close(centred.encode(x), raw.encode(x - x.mean(dim=-1, keepdim=True)))
    assert torch.equal(raw.encode(x), sae.encode(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_stream_is_read_in_the_saes_format(dtype: torch.dtype, model: LanguageModel) -> None:
    dictionary = wrap(random_sae("standard"), model)
    assert dictionary.read(residual(3).to(dtype)).dtype == torch.float64
    assert dictionary.encode(residual(3).to(dtype)).dtype == torch.float64


def without_mean_removal() -> LanguageModel:
    """A model whose norms are RMSNorms, which a mean of the stream passes through."""
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=tiny.WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        bos_token_id=0,
        eos_token_id=0,
    )
    return wrap_model(LlamaForCausalLM(config), tiny.tokenizer())


@pytest.mark.filterwarnings("ignore:\\nThis SAE has non-empty model_from_pretrained_kwargs")
@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, False),
        ({"model_from_pretrained_kwargs": None}, False),
        ({"model_from_pretrained_kwargs": {}}, False),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": False}}, False),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, True),
    ],
)
def test_auto_follows_the_metadata_on_layer_norm_models_and_the_setting_has_the_last_word(
    metadata: dict[str, object], says: bool, model: LanguageModel
) -> None:
    sae = random_sae("standard", metadata={"hook_name": HOOK} | metadata)
    assert wrap(sae, model, centred="auto").centred is says
    assert wrap(sae, without_mean_removal(), centred="auto").centred is False
    for chosen in (False, True):
        assert wrap(sae, model, centred=chosen).centred is chosen


def test_the_setting_may_name_the_hook(model: LanguageModel) -> None:
    sae = random_sae("standard")
    assert wrap(sae, model).site == HOOK_SITE
    site = wrap(sae, model, hook="blocks.2.hook_resid_post").site
    assert site == Site("blocks.2.hook_resid_post", 3)
    nameless = random_sae("standard", metadata={})
    with pytest.raises(InputError, match=r"tiny does not name its hook point; set `hook`"):
        wrap(nameless, model)
    assert wrap(nameless, model, hook=HOOK).site == HOOK_SITE


@pytest.mark.parametrize("architecture", [*INDEPENDENT, "topk"])
def test_the_fingerprint_follows_every_tensor(architecture: str, model: LanguageModel) -> None:
    config = {"k": 12} if architecture == "topk" else {}
    sae = random_sae(architecture, **config)
    seen = {wrap(sae, model).fingerprint}
    assert wrap(random_sae(architecture, **config), model, path="x").fingerprint in seen
    state = sae.state_dict()
    for tensor in state.values():
        tensor.view(-1)[-1] += 1
        seen.add(wrap(sae, model).fingerprint)
    assert len(seen) == 1 + len(state)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_saved_and_loaded_it_is_the_same(
    architecture: str, tmp_path: Path, model: LanguageModel
) -> None:
    sae = tiny.sae(architecture, HOOK)
    sae.save_model(tmp_path / "primary")
    setting = minimal.setting(tmp_path)
    loaded = load_dictionary(setting, setting.sae, model)
    original = wrap(sae, model)
    assert loaded.fingerprint == original.fingerprint
    assert loaded.site == original.site
    x = residual(5, 4).float()
    assert torch.equal(loaded.encode(x), original.encode(x))
    assert not any(parameter.requires_grad for parameter in loaded.sae.parameters())


def test_unsupported_architectures_are_named(model: LanguageModel) -> None:
    pursuit = random_sae("matching_pursuit")
    with pytest.raises(InputError, match=r"'matching_pursuit'; supported are gated, jumprelu, "):
        wrap(pursuit, model)


@pytest.mark.parametrize("k", [-1, 0, 97])
def test_k_lies_between_one_and_the_width(k: int, model: LanguageModel) -> None:
    sae = random_sae("topk", k=12)
    sae.cfg.k = k
    with pytest.raises(InputError, match=f"k = {k} does not lie between 1 and its 96 features"):
        wrap(sae, model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, model: LanguageModel) -> None:
    sae = random_sae("jumprelu")
    sae.threshold.data[5] = value
    with pytest.raises(InputError, match="tensor threshold holds NaN or infinity"):
        wrap(sae, model)


def test_another_width_is_refused(model: LanguageModel) -> None:
    message = r"reads 16 dimensions, the model has 32 at blocks\.1\.hook_resid_pre"
    with pytest.raises(InputError, match=message):
        wrap(tiny.sae("standard", HOOK, width=16), model)


NORMALISATIONS = ("layer_norm", "constant_norm_rescale")


def read_by_hand(x: torch.Tensor, normalisation: str) -> torch.Tensor:
    """What SAELens' documentation says an SAE reads."""
    if normalisation == "layer_norm":
        x = x - x.mean(dim=-1, keepdim=True)
        return x / (x.std(dim=-1, keepdim=True) + 1e-5)
    return x * tiny.WIDTH**0.5 / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("architecture", [*INDEPENDENT, "topk"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_activations_are_normalised_as_saelens_does(
    architecture: str, normalisation: str, model: LanguageModel
) -> None:
    config = {"k": 12} if architecture == "topk" else {}
    x, plain = residual(5, 4), random_sae(architecture, **config)
    whole = wrap(random_sae(architecture, **config, normalize_activations=normalisation), model)
    expected = plain.encode(read_by_hand(x, normalisation))
    torch.testing.assert_close(whole.encode(x), expected, rtol=EXACT, atol=EXACT)
    assert torch.equal(whole.encode(x), whole.sae.encode(x))
    if whole.independent:
        part = whole.columns(FEATURES).encode(x)
        torch.testing.assert_close(part, expected[..., FEATURES], rtol=EXACT, atol=EXACT)
    assert not torch.equal(expected, plain.encode(x))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_batch_topk_saes_are_saved_and_loaded_as_jumprelu(
    architecture: str, rescaled: bool, tmp_path: Path, model: LanguageModel
) -> None:
    """With the threshold learnt from one batch alone, both have the same activations on it."""
    training, x = trained_on_one_batch(architecture, rescaled)
    expected = training.encode(x)
    threshold = float(training.topk_threshold)
    assert threshold == expected[expected > 0].min()
    training.save_inference_model(tmp_path / "primary")
    setting = minimal.setting(tmp_path)
    loaded = load_dictionary(setting, setting.sae, model)
    assert (loaded.architecture, loaded.independent) == ("jumprelu", True)
    acts = loaded.encode(x)
    by_saelens = SAE.load_from_disk(tmp_path / "primary", dtype="float32").encode(x)
    assert torch.equal(acts, by_saelens)
    clear = (expected - threshold).abs() > SINGLE * threshold  # the least one is the threshold
    assert clear.sum() >= expected.numel() - 2
    torch.testing.assert_close(acts[clear], expected[clear], rtol=SINGLE, atol=SINGLE)
    part, some = loaded.columns(FEATURES).encode(x), clear[:, FEATURES]
    torch.testing.assert_close(part[some], acts[:, FEATURES][some], rtol=SINGLE, atol=SINGLE)
    active = (acts > 0).sum(dim=1)
    assert active.float().mean() == pytest.approx(6, abs=0.1)
    assert active.min() < 6 < active.max()  # k on average, not for each token


def trained_on_one_batch(architecture: str, rescaled: bool) -> tuple[TrainingSAE, torch.Tensor]:
    """A training SAE of k = 6 with random weights, and the batch its threshold comes from."""
    nested = {"matryoshka_widths": [24, 96]} if architecture.startswith("matryoshka") else {}
    torch.manual_seed(0)
    made = TrainingSAE.from_dict(
        {
            "architecture": architecture,
            "d_in": tiny.WIDTH,
            "d_sae": 96,
            "k": 6,
            "topk_threshold_lr": 1.0,
            "rescale_acts_by_decoder_norm": rescaled,
            "metadata": {"hook_name": HOOK},
        }
        | nested
    )
    generator = torch.Generator().manual_seed(3)
    for name, parameter in made.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        if name == "W_dec":
            parameter.data *= 1 + torch.rand(96, 1, generator=generator)
    x = residual(50).float()
    step = TrainStepInput(
        sae_in=x, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )
    made.training_forward_pass(step)
    return made, x


HEADS_HOOK = "blocks.1.attn.hook_z"
HEADS, D_HEAD = 4, tiny.WIDTH // 4


@pytest.mark.parametrize("normalisation", ["none", *NORMALISATIONS])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_joined_heads_are_encoded_as_saelens_encodes_them_apart(
    architecture: str, normalisation: str, model: LanguageModel
) -> None:
    config = {"reshape_activations": "hook_z", "normalize_activations": normalisation}
    by_saelens = tiny.sae(architecture, HEADS_HOOK, dtype=torch.float64, **config)
    whole = wrap(tiny.sae(architecture, HEADS_HOOK, dtype=torch.float64, **config), model)
    x = residual(5, 4)
    apart = x.view(5, 4, HEADS, D_HEAD)
    expected = by_saelens.encode(apart)
    reconstructed = by_saelens.decode(expected)
    assert torch.equal(whole.encode(x), expected)
    assert torch.equal(whole.sae.decode(expected), reconstructed.flatten(2))
    assert torch.equal(whole.encode(x[0]), expected[0])
    if whole.independent:
        part = whole.columns(FEATURES).encode(x)
        torch.testing.assert_close(part, expected[..., FEATURES], rtol=EXACT, atol=EXACT)


def test_an_sae_of_heads_reads_what_the_bridge_has_there(
    tmp_path: Path, model: LanguageModel
) -> None:
    tiny.sae("jumprelu", HEADS_HOOK, reshape_activations="hook_z").save_model(tmp_path / "primary")
    setting = minimal.setting(tmp_path)
    loaded = load_dictionary(setting, setting.sae, model)
    by_saelens = SAE.load_from_disk(tmp_path / "primary")
    seen = []
    model.bridge.run_with_hooks(
        tiny.contexts(3),
        fwd_hooks=[(HEADS_HOOK, lambda values, hook: seen.append(values.clone()))],
    )
    assert seen[0].shape == (3, 9, HEADS, D_HEAD)
    (read,) = model.read(tiny.contexts(3), [loaded.site])
    assert torch.equal(loaded.encode(read), by_saelens.encode(seen[0]))


def test_heads_are_not_centred(model: LanguageModel) -> None:
    sae = tiny.sae("standard", HEADS_HOOK)
    with pytest.raises(InputError, match=r"reads attention heads; `centred = true` is for what"):
        wrap(sae, model, centred=True)
    assert wrap(sae, model, centred=False).centred is False
    sae.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    assert wrap(sae, model, centred="auto").centred is False
    assert wrap(sae, model, centred="auto", hook="blocks.1.hook_attn_out").centred is True


def of_family(family: str) -> LanguageModel:
    return wrap_model(families.network(family, torch.float32), tiny.tokenizer())


def test_hooks_that_a_model_lacks_are_refused(model: LanguageModel) -> None:
    hook = "blocks.1.hook_resid_mid"
    for family in ("gpt_neox", families.UNKNOWN):
        parallel = of_family(family)
        kind = parallel.config.model_type
        message = rf"reads '{hook}', which a model of type '{kind}' does not have"
        with pytest.raises(InputError, match=message):
            wrap(tiny.sae("standard", hook), parallel)
        assert wrap(tiny.sae("standard", "blocks.1.hook_attn_out"), parallel)
    for sequential in (of_family("gpt_neox sequential"), model):
        assert wrap(tiny.sae("standard", hook), sequential).site == Site(hook, 1, Stage.MIDDLE)


def test_the_width_is_that_of_the_site() -> None:
    """Gemma-2's heads are together wider than its stream: 4 of 12 dimensions beside 32."""
    gemma = of_family("gemma2")
    with pytest.raises(InputError, match=rf"reads 32 dimensions, the model has 48 at {HEADS_HOOK}"):
        wrap(tiny.sae("standard", HEADS_HOOK), gemma)
    heads = wrap(tiny.sae("standard", HEADS_HOOK, width=48), gemma)
    (read,) = gemma.read(tiny.contexts(3), [heads.site])
    assert read.shape == (3, 9, 48)
    assert gemma.to_stream(heads.decoder, heads.site).shape == (96, 32)
    with pytest.raises(InputError, match=r"reads 48 dimensions, the model has 32"):
        wrap(tiny.sae("standard", HOOK, width=48), gemma)


def test_a_sae_of_heads_at_another_hook_is_refused(model: LanguageModel) -> None:
    made = tiny.sae("standard", HEADS_HOOK, reshape_activations="hook_z")
    which = SaeSetting(path="tiny", hook="blocks.1.hook_resid_pre")
    with pytest.raises(InputError, match=r"reads attention heads .* expected blocks\.L\.attn"):
        wrap_sae(made, which, model)
