"""A LoRA that was built to write or read features is pulled back to exactly these."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny
import torch
from cleansteer.auditing.lora import _behind, _in_front, _part, _through
from cleansteer.auditing.pulled import matching_pursuit
from peft import IA3Config, LoraConfig, get_peft_model
from sae_lens import SAE
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

Command = Callable[..., Any]
RANK = 2


@pytest.fixture(scope="module")
def decoder(built: Path) -> torch.Tensor:
    return SAE.load_from_disk(str(built / "primary")).W_dec.detach()


def network(built: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(built / "model")


def lora(built: Path, folder: Path, module: str, a: torch.Tensor, b: torch.Tensor) -> Path:
    """A LoRA on one module, with its matrices set by hand."""
    config = LoraConfig(r=len(a), lora_alpha=2 * len(a), target_modules=[module])
    model = get_peft_model(network(built), config)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.data = a.clone()
        elif "lora_B" in name:
            parameter.data = b.clone()
    model.save_pretrained(folder)
    return folder


def told(built: Path, folder: Path) -> tuple[object, ...]:
    return ("--lora", folder, "--setting", built / "tiny.toml", "--top", 5)


def rows(seed: int = 0, width: int = 128) -> torch.Tensor:
    """Orthogonal rows of one length."""
    drawn = torch.randn(width, RANK, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn).Q.T


def test_one_that_writes_one_direction_is_that_feature(
    built: Path,
    decoder: torch.Tensor,
    tmp_path: Path,
    audit: Command,
) -> None:
    b = torch.stack([3 * decoder[17], torch.zeros_like(decoder[17])], dim=1)
    folder = lora(built, tmp_path / "one", "transformer.h.0.mlp.c_proj", rows(), b)
    found = audit(*told(built, folder))
    (side,) = found["sides"]
    assert (side["kind"], side["modules"]) == ("writes", ["transformer.h.0.mlp.c_proj"])
    assert [each["feature"] for each in side["features"]] == [17]
    assert side["features"][0]["share"] == pytest.approx(1.0, abs=1e-4)
    assert side["share"] == pytest.approx(1.0, abs=1e-4)
    assert side["random_share"] < 0.95
    (direction,) = side["directions"]
    assert direction["feature"] == 17
    assert direction["cosine"] == pytest.approx(1.0, abs=1e-4)


def test_one_of_two_directions_is_both_with_their_shares(
    built: Path,
    decoder: torch.Tensor,
    tmp_path: Path,
    audit: Command,
) -> None:
    """Of lengths 2 and 1, 4/5 and 1/5 of the size, but for what the directions have in common."""
    units = torch.nn.functional.normalize(decoder, dim=1)
    other = int((units @ units[17]).abs().argmin())
    b = torch.stack([2 * units[17], units[other]], dim=1)
    folder = lora(built, tmp_path / "two", "transformer.h.0.attn.c_proj", rows(width=32), b)
    found = audit(*told(built, folder))
    features = found["sides"][0]["features"]
    assert [each["feature"] for each in features] == [17, other]
    assert features[0]["share"] == pytest.approx(0.8, abs=0.02)
    assert features[1]["share"] == pytest.approx(0.2, abs=0.02)
    assert features[1]["share_alone"] == pytest.approx(0.2, abs=0.02)
    assert sum(each["share"] for each in features) == pytest.approx(1.0, abs=1e-4)


def test_one_that_reads_a_direction_reads_that_feature_through_the_norm(
    built: Path,
    decoder: torch.Tensor,
    tmp_path: Path,
    audit: Command,
) -> None:
    """What LayerNorm's weight multiplies is divided by it in A; its centring takes a mean away."""
    units = torch.nn.functional.normalize(decoder - decoder.mean(dim=1, keepdim=True), dim=1)
    gain = network(built).transformer.h[2].ln_1.weight.detach()
    a = torch.stack([units[40] / gain, torch.zeros(32)])
    b = torch.randn(96, RANK, generator=torch.Generator().manual_seed(1))
    folder = lora(built, tmp_path / "reads", "transformer.h.2.attn.c_attn", a, b)
    (side,) = audit(*told(built, folder))["sides"]
    assert side["kind"] == "reads"
    assert side["features"][0]["feature"] == 40
    centred = torch.nn.functional.normalize(decoder, dim=1)[40] @ units[40]
    assert side["features"][0]["share"] == pytest.approx(float(centred) ** 2, abs=1e-3)


NORMS = {
    # family: in front of attention, in front of the MLP, behind attention, behind the MLP
    "gpt2": ("ln_1", "ln_2", None, None),
    "gpt_neox": ("input_layernorm", "post_attention_layernorm", None, None),
    "llama": ("input_layernorm", "post_attention_layernorm", None, None),
    "gemma2": (
        "input_layernorm",
        "pre_feedforward_layernorm",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    ),
    "olmo2": (None, None, "post_attention_layernorm", "post_feedforward_layernorm"),
    "phi": ("input_layernorm", "input_layernorm", None, None),
}


@pytest.mark.parametrize("family", NORMS)
def test_every_familys_norms_are_where_they_stand(family: str) -> None:
    layer = families.layers_of(families.network(family, torch.float32))[0]
    found = [_in_front(layer, False), _in_front(layer, True)]
    found += [_behind(layer, False), _behind(layer, True)]
    expected = [None if name is None else getattr(layer, name) for name in NORMS[family]]
    assert all(one is other for one, other in zip(found, expected, strict=True))


def test_writing_goes_through_the_norm_behind_and_reading_through_the_one_in_front() -> None:
    made = families.network("gemma2", torch.float32)
    targets = [f"model.layers.1.{name}" for name in ("self_attn.q_proj", "mlp.down_proj")]
    model = get_peft_model(made, LoraConfig(r=1, target_modules=targets)).get_base_model()
    layers = families.layers_of(model)
    layer = layers[1]
    generator = torch.Generator().manual_seed(0)
    for part in (layer.self_attn.q_proj, layer.mlp.down_proj):
        for matrices in (part.lora_A, part.lora_B):
            weight = matrices["default"].weight
            weight.data = torch.randn(weight.shape, generator=generator)

    def direction(name: str, module: Any) -> torch.Tensor:
        found = _part(name, module, "model.layers", layers, tiny.WIDTH)
        assert found is not None
        return torch.nn.functional.normalize(found.factor[:, 0], dim=0).abs()

    read = layer.self_attn.q_proj.lora_A["default"].weight[0] * (1 + layer.input_layernorm.weight)
    behind = 1 + layer.post_feedforward_layernorm.weight
    written = layer.mlp.down_proj.lora_B["default"].weight[:, 0] * behind
    for name, module, expected in (
        (targets[0], layer.self_attn.q_proj, read),
        (targets[1], layer.mlp.down_proj, written),
    ):
        ours = torch.nn.functional.normalize(expected.detach(), dim=0).abs()
        torch.testing.assert_close(direction(name, module), ours, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", [torch.nn.LayerNorm(8), torch.nn.RMSNorm(8)], ids=str)
def test_through_a_norm_directions_are_its_derivative(norm: torch.nn.Module) -> None:
    """But for its scale, and what lies along the values that it is asked at."""
    generator = torch.Generator().manual_seed(0)
    norm.weight.data = torch.rand(8, generator=generator) + 0.5
    x = torch.randn(8, generator=generator)
    if isinstance(norm, torch.nn.LayerNorm):
        x = x - x.mean()
    derivative = torch.func.jacrev(norm)(x).detach()
    rows = torch.randn(3, 8, generator=generator)
    found = _through(norm, rows)
    away = torch.eye(8) - torch.outer(x, x) / x.square().sum()
    expected = rows @ derivative @ away * x.square().mean().sqrt()
    torch.testing.assert_close(found @ away, expected, rtol=1e-3, atol=1e-3)


def test_what_acts_elsewhere_is_named(
    built: Path,
    tmp_path: Path,
    audit: Command,
) -> None:
    """Writing behind the hook, and reading in front of it."""
    for module in ("transformer.h.3.mlp.c_proj", "transformer.h.0.mlp.c_fc"):
        width = 128 if module.endswith("c_proj") else 32
        b = torch.randn(160 - width, RANK)
        folder = lora(built, tmp_path / module, module, rows(width=width), b)
        found = audit(*told(built, folder))
        assert (found["sides"], found["elsewhere"]) == ([], [module])


def test_pursuit_is_the_least_squares_of_its_choice() -> None:
    """Shares are what a regression on the chosen directions explains."""
    generator = torch.Generator().manual_seed(0)
    units = torch.nn.functional.normalize(torch.randn(60, 12, generator=generator), dim=1)
    factor = torch.randn(12, 4, generator=generator)
    chosen, shares = matching_pursuit(units, factor, 12)
    assert len(set(chosen)) == len(chosen)
    for count in range(1, len(chosen) + 1):
        basis = units[chosen[:count]].T.double().numpy()
        target = factor.double().numpy()
        left = target - basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
        explained = 1 - (left**2).sum() / (target**2).sum()
        assert sum(shares[:count]) == pytest.approx(explained, abs=1e-4)
    first = (units @ factor).square().sum(dim=1)
    assert chosen[0] == int(first.argmax())


def test_shown_in_a_terminal_with_names(
    built: Path,
    decoder: torch.Tensor,
    tmp_path: Path,
    shown: Command,
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("index,description\n17,dates\n")
    b = torch.stack([decoder[17], decoder[3]], dim=1)
    folder = lora(built, tmp_path / "shown", "transformer.h.0.mlp.c_proj", rows(), b)
    given = ("--lora", folder, "--setting", built / "tiny.toml", "--descriptions", names)
    err = shown(*given)
    for part in ("What it writes in front of it (1 modules)", "dates", "of a random change"):
        assert part in err


def test_loras_that_are_none_or_of_another_model_are_refused(
    built: Path,
    decoder: torch.Tensor,
    tmp_path: Path,
    refused: Command,
) -> None:
    get_peft_model(network(built), IA3Config()).save_pretrained(tmp_path / "ia3")
    get_peft_model(network(built), LoraConfig(r=2, use_dora=True)).save_pretrained(
        tmp_path / "dora"
    )
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=600,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )
    get_peft_model(llama, LoraConfig(r=2)).save_pretrained(tmp_path / "llama")
    wide = lora(built, tmp_path / "wide", "transformer.h.0.mlp.c_proj", rows(), torch.zeros(32, 2))
    deeper = json.loads((wide / "adapter_config.json").read_text())
    (wide / "adapter_config.json").write_text(json.dumps(deeper | {"r": 3}))
    setting = ("--setting", built / "tiny.toml")
    pickled = lora(
        built, tmp_path / "pickled", "transformer.h.0.mlp.c_proj", rows(), torch.zeros(32, 2)
    )
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--lora", pickled, *setting), "has no adapter_model.safetensors"),
        ((), "expected an adapter's directory, --lora DIR or --tuned MODEL"),
        (("--lora", tmp_path / "none", *setting), "holds no adapter_config.json"),
        (("--lora", tmp_path / "ia3", *setting), "of PEFT's type 'IA3'"),
        (("--lora", tmp_path / "dora", *setting), "is a DoRA"),
        (("--lora", tmp_path / "llama", *setting), "does not fit model"),
        (("--lora", wide, *setting), "does not fit model"),
        (("--lora", wide), "expected --setting as well"),
        (("--lora", wide, *setting, "--by", "size"), "--by size does not apply to --lora"),
    ]
    for given, part in cases:
        assert part in refused(*given)
