"""Weights: exactly those that the model is made of, or one line that says which are not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import minimal
import pytest
import tiny
import torch
from cleansteer.core.errors import InputError
from cleansteer.core.given import Given
from cleansteer.core.networks import check_causal, load_network, quiet_libraries
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel, RobertaConfig, RobertaForCausalLM

Tensors = dict[str, Tensor]
TOKENS = tiny.contexts(3)
UNTIED = "llama"
KEPT = ("gpt2", "gpt_neox", "gemma2", "llama", families.UNKNOWN)
N_LAYERS = families.LAYERS


def save(network: Any, folder: Path) -> Path:
    with quiet_libraries():
        network.save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of saved networks, not to be changed."""
    root = tmp_path_factory.mktemp("networks")

    def saved(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else save(families.network(family, torch.float32), folder)

    return saved


def rewritten(source: Path, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A copy of a model's directory whose tensors are changed."""
    shutil.copytree(source, folder)
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def load(folder: Path) -> Any:
    return load_network(minimal.setting(folder.parent).replace("model", name=folder.name))[0]


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def masks(block: str) -> Callable[[int], Tensors]:
    """What the hub's GPT-2 and Pythia hold beside their parameters, as older versions saved it."""
    triangle = torch.ones(64, 64).tril()[None, None].bool()
    return lambda layer: {
        f"{block.format(layer)}.bias": triangle.clone(),
        f"{block.format(layer)}.masked_bias": torch.tensor(-1e9),
    }


def frequencies(block: str) -> Callable[[int], Tensors]:
    return lambda layer: {f"{block.format(layer)}.rotary_emb.inv_freq": torch.full((4,), 7.0)}


COMPUTED = [
    ("gpt2", masks("transformer.h.{}.attn")),
    ("gpt_neox", masks("gpt_neox.layers.{}.attention")),
    ("gpt_neox", frequencies("gpt_neox.layers.{}.attention")),
    ("llama", frequencies("model.layers.{}.self_attn")),
    ("gemma2", frequencies("model.layers.{}.self_attn")),
]


@pytest.mark.parametrize("family", KEPT)
def test_a_whole_model_is_loaded_as_it_was(family: str, shelf: Callable[[str], Path]) -> None:
    expected = families.network(family, torch.float32)(TOKENS).logits
    assert torch.equal(load(shelf(family))(TOKENS).logits, expected)


@pytest.mark.parametrize(("family", "extra"), COMPUTED)
def test_buffers_that_models_compute_themselves_may_be_there(
    family: str, extra: Callable[[int], Tensors], shelf: Callable[[str], Path], tmp_path: Path
) -> None:
    more = {name: tensor for layer in range(N_LAYERS) for name, tensor in extra(layer).items()}
    folder = rewritten(shelf(family), tmp_path / "model", lambda tensors: tensors | more)
    expected = families.network(family, torch.float32)(TOKENS).logits
    assert torch.equal(load(folder)(TOKENS).logits, expected)


def test_gpt2_as_the_hub_has_it(shelf: Callable[[str], Path], tmp_path: Path) -> None:
    """Without the head, which is tied, and without the prefix of the model within the model."""
    extra = masks("h.{}.attn")

    def change(tensors: Tensors) -> Tensors:
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        return bare | {k: v for layer in range(N_LAYERS) for k, v in extra(layer).items()}

    folder = rewritten(shelf("gpt2"), tmp_path / "model", change)
    expected = families.network("gpt2", torch.float32)(TOKENS).logits
    assert torch.equal(load(folder)(TOKENS).logits, expected)


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if not any(p in k for p in parts)}


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def of_another_shape(tensors: Tensors) -> Tensors:
    return tensors | {"model.norm.weight": torch.ones(3)}


def with_more(tensors: Tensors) -> Tensors:
    return tensors | {"model.layers.4.mlp.up_proj.weight": torch.ones(3)}


REFUSED = {
    "no head": (without("lm_head"), ("1 tensor missing (lm_head.weight)", "head included")),
    "no layer": (
        without("layers.2."),
        ("16 tensors missing (model.layers.2.input_layernorm.weight", ", ...)"),
    ),
    "another shape": (
        of_another_shape,
        ("1 tensor of another shape (model.norm.weight is [3], expected [32])", "config.json"),
    ),
    "a layer more": (
        with_more,
        ("1 tensor not known to it (model.layers.4.mlp.up_proj.weight)", "config.json"),
    ),
    "compiled": (prefixed("_orig_mod."), ("67 tensors missing", "model._orig_mod")),
    "compiled within": (
        lambda tensors: {k.replace("model.", "model._orig_mod."): v for k, v in tensors.items()},
        ("66 tensors missing", "'model._orig_mod.'", "torch.compile"),
    ),
    "in parallel": (prefixed("module."), ("67 tensors not known", "model.module")),
    "adapted": (prefixed("base_model.model."), ("67 tensors missing", "merge_and_unload")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_tensors_are_named(case: str, shelf: Callable[[str], Path], tmp_path: Path) -> None:
    change, expected = REFUSED[case]
    line = refused(rewritten(shelf(UNTIED), tmp_path / "model", change))
    for part in (str(tmp_path / "model"), *expected):
        assert part in line


def test_a_model_saved_without_its_head_is_refused(tmp_path: Path) -> None:
    network: Any = families.network(UNTIED, torch.float32)
    config = network.config.to_dict()
    save(network.model, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), "utf-8")
    assert "1 tensor missing (lm_head.weight)" in refused(tmp_path / "model")


def test_a_tied_head_may_be_left_out(tmp_path: Path) -> None:
    network: Any = families.network("gemma2", torch.float32)
    config = network.config.to_dict()
    save(network.model, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), "utf-8")
    assert torch.equal(load(tmp_path / "model")(TOKENS).logits, network(TOKENS).logits)


def test_a_lora_directory_is_named(shelf: Callable[[str], Path], tmp_path: Path) -> None:
    model = get_peft_model(
        families.network(UNTIED, torch.float32), LoraConfig(target_modules=["q_proj"])
    )
    model.peft_config["default"].base_model_name_or_path = str(shelf(UNTIED))
    save(model, tmp_path / "model")
    assert "is a PEFT adapter" in refused(tmp_path / "model")
    shutil.copytree(shelf(UNTIED), tmp_path / "model", dirs_exist_ok=True)
    assert "is a PEFT adapter" in refused(tmp_path / "model")


QUANTISED = [
    {"quant_method": "gptq", "bits": 4, "group_size": 128},
    {"quant_method": "bitsandbytes", "load_in_4bit": True},
    {"quant_method": "fp8", "weight_block_size": [128, 128]},
]


@pytest.mark.parametrize("entry", QUANTISED, ids=lambda entry: entry["quant_method"])
def test_a_quantised_model_is_named(
    entry: dict[str, Any], shelf: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(shelf(UNTIED), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": entry}))
    assert f"is quantised ({entry['quant_method']})" in refused(folder)
    network: Any = families.network(UNTIED, torch.float32)
    network.config.quantization_config = entry
    with pytest.raises(InputError, match="model= is quantised"):
        Given(model=network, tokenizer=tiny.tokenizer()).check()


def test_a_given_model_with_an_adapter_on_it_is_named() -> None:
    network: Any = families.network(UNTIED, torch.float32)
    network.add_adapter(LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(InputError, match="model= carries a PEFT adapter"):
        Given(model=network, tokenizer=tiny.tokenizer()).check()


def encoder(kind: type, configuration: type, decoder: bool, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    shape = {k: v for k, v in families.SHAPE.items() if k != "initializer_range"}
    return kind(configuration(**shape, is_decoder=decoder, initializer_range=0.2)).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("kind", "configuration"),
    [(BertLMHeadModel, BertConfig), (RobertaForCausalLM, RobertaConfig)],
)
def test_an_encoder_is_told_from_a_causal_model(
    kind: type, configuration: type, dtype: torch.dtype
) -> None:
    check_causal(encoder(kind, configuration, True, dtype))
    with pytest.raises(InputError, match="lets a token change what is predicted before it"):
        check_causal(encoder(kind, configuration, False, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", [*families.FAMILIES, families.UNKNOWN])
def test_every_family_is_causal(family: str, dtype: torch.dtype) -> None:
    check_causal(families.network(family, dtype))


def test_weights_that_are_not_numbers_are_named() -> None:
    network: Any = families.network(UNTIED, torch.float32)
    network.model.norm.weight[3] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        check_causal(network)
