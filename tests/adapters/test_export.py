"""What an export holds is what the adapter does, read back by others' readers."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import exported
import families
import gguf
import lessons
import numpy as np
import pytest
import tiny
import torch
import world
from cleansteer.adapters import exports
from cleansteer.adapters.exports.control_vector import ARCHITECTURES
from cleansteer.adapters.exports.formats import register
from cleansteer.core.errors import InputError
from cleansteer.core.records import Allowlist, ExportRecord
from cleansteer.core.settings import SaeSetting, Setting, read_setting
from exported import FEATURES
from sae_lens import SAE
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

ROUNDING = 2e-5
"""Largest difference of float32 sums taken in another order, relative to the largest value."""
SITES = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
FAMILIES = ("gpt2", "gpt_neox", "gemma2", "llama")


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= ROUNDING * expected.abs().max())


def moved(edited: torch.Tensor, plain: torch.Tensor) -> bool:
    """The edit is far more than rounding, so that equality says something."""
    return bool((edited - plain).abs().max() > 100 * ROUNDING * plain.abs().max())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


def edits_of(shelf: Path, folder: Path, family: str = "gpt2") -> tuple[exports.Host, list[Any]]:
    host = exports.open_host(str(exported.network_folder(shelf, family)), Path.cwd())
    return host, exports.adapter_edits(folder, host)


def width(family: str, hook: str) -> int:
    return families.width_at(families.network(family), hook)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_vector_is_what_the_adapter_adds_at_every_token(
    shelf: Path, tmp_path: Path, family: str, site: str
) -> None:
    hook = f"blocks.1.{site}"
    sae = exported.sae_folder(shelf, width=width(family, hook))
    model = exported.adapter(
        shelf, tmp_path / "adapter", [exported.target(sae, hook, FEATURES)], family
    )
    host, edits = edits_of(shelf, tmp_path / "adapter", family)
    out = tmp_path / "x.safetensors"
    exports.write_edits("safetensors", host, edits, out, {})
    ((name, vector),) = exported.tensors(out).items()
    assert name == hook
    assert vector.dtype == torch.float32
    difference = exported.added(model, hook)
    assert close(difference, vector.expand_as(difference))


def test_bit_for_bit_what_the_layer_computes(shelf: Path, tmp_path: Path) -> None:
    sae = exported.sae_folder(shelf)
    hook = "blocks.2.hook_resid_post"
    model = exported.adapter(shelf, tmp_path, [exported.target(sae, hook)])
    layer: Any = families.layers_of(model.get_base_model())[2]
    _, (edit,) = edits_of(shelf, tmp_path)
    assert torch.equal(layer.edit("exit", torch.zeros(1, tiny.WIDTH))[0], edit.vector)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt_neox sequential", "mistral", "qwen2"])
def test_directions_of_gguf_added_by_hand_give_the_adapters_logits(
    shelf: Path, tmp_path: Path, family: str
) -> None:
    sae = exported.sae_folder(shelf)
    hooks = ["blocks.2.hook_resid_pre", "blocks.1.hook_resid_post", "blocks.3.hook_resid_post"]
    targets = [exported.target(sae, hook, [2 + n, 7 + n, 30]) for n, hook in enumerate(hooks)]
    model = exported.adapter(shelf, tmp_path / "adapter", targets, family)
    host, edits = edits_of(shelf, tmp_path / "adapter", family)
    out = tmp_path / "x.gguf"
    record = exports.write_edits("gguf", host, edits, out, {})
    read = exported.directions(out)
    # The first two are one place: the output of layer 1.
    assert [edit.stored_as for edit in record.edits] == [
        "direction.1",
        "direction.1",
        "direction.3",
    ]
    assert sorted(read) == [1, 3]
    assert torch.equal(read[1], edits[0].vector + edits[1].vector)
    assert torch.equal(read[3], edits[2].vector)
    network = families.network(family, torch.float32)
    layers = families.layers_of(network)
    by_hand = exported.steered(network, {layers[i]: vector for i, vector in read.items()})
    assert moved(by_hand, exported.logits(network))
    assert close(by_hand, exported.logits(model))
    assert exported.field(out, "general.architecture") == "controlvector"
    assert exported.field(out, "controlvector.layer_count") == len(read)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_model_hint_is_an_architecture_of_llama_cpp(model_type: str) -> None:
    assert model_type in CONFIG_MAPPING
    assert ARCHITECTURES[model_type] in gguf.MODEL_ARCH_NAMES.values()


@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("site", SITES[:-1])
@pytest.mark.parametrize("family", FAMILIES)
def test_row_for_lm_eval_is_the_adapters_edit(
    shelf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    site: str,
    rescaled: bool,
) -> None:
    folder = exported.sae_folder(shelf, "topk", rescale_acts_by_decoder_norm=rescaled)
    assert abs(SAE.load_from_disk(str(folder)).W_dec[7].norm() - 1) > 0.1
    published = exported.publish(monkeypatch, folder)
    targets = [{"hook": f"blocks.2.{site}", "sae": published, "features": [7]}]
    model = exported.adapter(shelf, tmp_path / "adapter", targets, family)
    host, edits = edits_of(shelf, tmp_path / "adapter", family)
    out = tmp_path / "x.csv"
    record = exports.write_edits("lm-eval", host, edits, out, {})
    assert all(version in record.notes[0] for version in ("0.4.9.1", "0.4.9.2", "AssertionError"))
    hookpoint, vector = exported.lm_eval_push(out)
    assert record.edits[0].stored_as == hookpoint
    assert close(vector, edits[0].vector)
    network: Any = families.network(family, torch.float32)
    module = dict(network.base_model.named_modules())[hookpoint]
    by_hand = exported.steered(network, {module: vector})
    assert moved(by_hand, exported.logits(network))
    assert close(by_hand, exported.logits(model))


def test_what_is_not_pushed_takes_no_row(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = exports.open_host(str(exported.network_folder(shelf)), Path.cwd())
    published = exported.publish(monkeypatch, exported.sae_folder(shelf))
    still, edit = (
        exports.feature_edits([3, 7], 2.0, SaeSetting(hook=hook, **published), Path.cwd(), host)[0]
        for hook in ("blocks.1.attn.hook_z", "blocks.2.hook_resid_post")
    )
    still = dataclasses.replace(still, scale=torch.zeros(2))
    edit = dataclasses.replace(edit, scale=torch.tensor([0.0, 2.0]))
    out = tmp_path / "x.csv"
    record = exports.write_edits("lm-eval", host, [still, edit], out, {})
    assert [each.stored_as for each in record.edits] == [None, "h.2"]
    hookpoint, vector = exported.lm_eval_push(out)
    assert hookpoint == "h.2"
    decoder = SAE.load_from_disk(str(exported.sae_folder(shelf))).W_dec.detach()
    assert torch.equal(vector, 2.0 * decoder[7])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_sidecar_makes_the_vector_again(shelf: Path, tmp_path: Path, architecture: str) -> None:
    folder = exported.sae_folder(shelf, architecture)
    hooks = ("blocks.1.hook_resid_post", "blocks.3.hook_mlp_out")
    targets = [
        exported.target(folder, hook, features)
        for hook, features in zip(hooks, (FEATURES, None), strict=True)
    ]
    exported.adapter(shelf, tmp_path / "adapter", targets)
    host, edits = edits_of(shelf, tmp_path / "adapter")
    out = tmp_path / "x.safetensors"
    written = exports.write_edits("safetensors", host, edits, out, {"adapter": "here"})
    assert ExportRecord.read(tmp_path / "x.safetensors.json") == written
    record = json.loads((tmp_path / "x.safetensors.json").read_text("utf-8"))
    assert record["format"] == "cleansteer-export/1"
    assert (record["operation"], record["positions"], record["dtype"]) == ("add", "all", "float32")
    assert record["source"] == {"adapter": "here"}
    assert record["model"] == {"name": host.name, "type": "gpt2", "layers": tiny.LAYERS}
    stored = exported.tensors(out)
    for edit, hook in zip(record["edits"], hooks, strict=True):
        assert edit["hook"] == hook == f"blocks.{edit['layer']}.{edit['site']}"
        sae = SAE.load_from_disk(edit["sae"]["path"])
        assert edit["sae"]["fingerprint"]
        vector = stored[edit["stored_as"]]
        assert close(exported.decoded(sae, edit), vector)
        assert edit["norm"] == pytest.approx(float(vector.norm()))


def features_vector(shelf: Path, features: list[int], coefficient: float) -> torch.Tensor:
    host = exports.open_host(str(exported.network_folder(shelf)), Path.cwd())
    which = SaeSetting(path=str(exported.sae_folder(shelf)), hook="blocks.2.hook_resid_post")
    (edit,) = exports.feature_edits(features, coefficient, which, Path.cwd(), host)
    return edit.vector


def test_a_doubled_coefficient_doubles_the_vector(shelf: Path) -> None:
    once = features_vector(shelf, FEATURES, 1.5)
    assert torch.equal(features_vector(shelf, FEATURES, 3.0), 2 * once)
    assert torch.equal(features_vector(shelf, FEATURES, -1.5), -once)


def test_the_order_of_features_does_not_matter(shelf: Path) -> None:
    there, back = (features_vector(shelf, order, 2.0) for order in (FEATURES, FEATURES[::-1]))
    assert torch.equal(there, back)


def test_vectors_of_parts_add_up(shelf: Path) -> None:
    parts = [features_vector(shelf, [feature], 2.0) for feature in FEATURES]
    assert close(sum(parts[1:], parts[0]), features_vector(shelf, FEATURES, 2.0))


def test_features_are_a_bias_adapter_of_equal_biases(shelf: Path, tmp_path: Path) -> None:
    folder = exported.sae_folder(shelf)
    hook = "blocks.2.hook_resid_post"
    model = exported.adapter(shelf, tmp_path, [exported.target(folder, hook, FEATURES)])
    for name, parameter in model.named_parameters():
        if "cleansteer_" in name:
            parameter.data.fill_(2.5)
    model.save_pretrained(tmp_path)
    _, (edit,) = edits_of(shelf, tmp_path)
    assert torch.equal(edit.vector, features_vector(shelf, FEATURES, 2.5))


def test_an_export_touches_no_weights(shelf: Path) -> None:
    host = exports.open_host(str(exported.network_folder(shelf)), Path.cwd())
    assert {parameter.device.type for parameter in host.network.parameters()} == {"meta"}
    assert isinstance(host.network, type(AutoModelForCausalLM.from_config(host.network.config)))


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register("gguf", ".gguf", exports.control_vector.prepare)


UNREACHABLE = {
    ("gguf", "blocks.0.hook_resid_post"): "layer 0's output",
    ("gguf", "blocks.1.hook_resid_pre"): "layer 0's output",
    ("gguf", "blocks.0.hook_resid_pre"): "what enters layer 0",
    ("gguf", "blocks.2.hook_attn_out"): "not inside them",
    ("gguf", "blocks.2.hook_mlp_out"): "not inside them",
    ("gguf", "blocks.2.attn.hook_z"): "not inside them",
    ("lm-eval", "blocks.0.hook_resid_pre"): "what enters layer 0",
    ("lm-eval", "blocks.2.attn.hook_z"): "attention heads",
}
ENDINGS = {"gguf": ".gguf", "lm-eval": ".csv"}


@pytest.mark.parametrize(("name", "hook"), UNREACHABLE)
def test_a_place_that_the_other_program_does_not_edit_is_refused(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hook: str
) -> None:
    host = exports.open_host(str(exported.network_folder(shelf)), Path.cwd())
    published = exported.publish(monkeypatch, exported.sae_folder(shelf))
    which = SaeSetting(hook=hook, **published)
    edits = exports.feature_edits([7], 1.0, which, Path.cwd(), host)
    with pytest.raises(InputError) as refused:
        exports.write_edits(name, host, edits, tmp_path / f"x{ENDINGS[name]}", {})
    assert hook in str(refused.value)
    assert UNREACHABLE[name, hook] in str(refused.value)
    assert not list(tmp_path.iterdir())
    exports.write_edits("safetensors", host, edits, tmp_path / "x.safetensors", {})


def test_an_architecture_that_was_not_read_is_refused(shelf: Path, tmp_path: Path) -> None:
    host = exports.open_host(str(exported.network_folder(shelf, "phi")), Path.cwd())
    which = SaeSetting(path=str(exported.sae_folder(shelf)), hook="blocks.2.hook_resid_post")
    edits = exports.feature_edits([7], 1.0, which, Path.cwd(), host)
    with pytest.raises(InputError, match=r"'phi'.*not known where llama\.cpp"):
        exports.write_edits("gguf", host, edits, tmp_path / "x.gguf", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_an_edit_that_depends_on_the_token_is_refused(
    shelf: Path, tmp_path: Path, normalisation: str
) -> None:
    folder = exported.sae_folder(shelf, normalize_activations=normalisation)
    hook = "blocks.2.hook_resid_post"
    model = exported.adapter(shelf, tmp_path, [exported.target(folder, hook, FEATURES)])
    difference = exported.added(model, hook)
    assert not close(difference, difference[0, 0].expand_as(difference))
    with pytest.raises(InputError, match=f"{normalisation}.*another vector at every token"):
        edits_of(shelf, tmp_path)


def test_a_write_that_fails_leaves_nothing(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = exports.open_host(str(exported.network_folder(shelf)), Path.cwd())
    which = SaeSetting(path=str(exported.sae_folder(shelf)), hook="blocks.2.hook_resid_post")
    edits = exports.feature_edits([7], 1.0, which, Path.cwd(), host)

    def broken(writer: gguf.GGUFWriter) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", broken)
    with pytest.raises(OSError, match="disk full"):
        exports.write_edits("gguf", host, edits, tmp_path / "x.gguf", {})
    assert not list(tmp_path.iterdir())


# From Python, as the command does it


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("world")
    path = world.build(folder)
    text = path.read_text("utf-8").replace(
        'path = "primary"', 'path = "primary"\nhook = "blocks.2.hook_resid_post"'
    )
    path.write_text(text, "utf-8")
    lessons.allowlist(read_setting(path), FEATURES).save(folder / "clean.json")
    (folder / "chosen.txt").write_text(" ".join(map(str, FEATURES)), "utf-8")
    return read_setting(path)


def test_features_are_given_in_any_form(setting: Setting, tmp_path: Path) -> None:
    chosen = setting.locate("chosen.txt")
    sources: dict[str, Any] = {
        "list": FEATURES[::-1],
        "array": np.array(FEATURES),
        "text": ",".join(map(str, FEATURES)),
        "file": chosen,
        "file's name": str(chosen),
        "allowlist": Allowlist.load(setting.locate("clean.json")),
        "allowlist's file": setting.locate("clean.json"),
    }
    vectors = {}
    for name, source in sources.items():
        out = tmp_path / f"{name}.safetensors"
        record = exports.export(source, "safetensors", out, setting=setting, coefficient=2)
        assert ExportRecord.read(tmp_path / f"{name}.safetensors.json") == record
        (vectors[name],) = exported.tensors(out).values()
    known = vectors["list"]
    assert known.abs().max() > 0
    assert all(torch.equal(vector, known) for vector in vectors.values())


WRONG_TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "source": ({"source": 3}, "source is 3"),
    "source of two": ({"source": {"features": [1]}}, "source is"),
    "format": ({"format": None}, "format is None"),
    "out": ({"out": 3}, "out is 3"),
    "setting": ({"setting": "mini-gpt2-relu"}, "setting is 'mini-gpt2-relu'"),
    "coefficient": ({"coefficient": "3"}, "coefficient is '3'"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_types_are_refused(case: str, setting: Setting, tmp_path: Path) -> None:
    changes, text = WRONG_TYPES[case]
    given: dict[str, Any] = {"source": [1], "format": "gguf", "out": tmp_path / "x.gguf"}
    given |= {"setting": setting, "coefficient": 2.0} | changes
    with pytest.raises(TypeError, match=re.escape(text)):
        exports.export(**given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", [{"positions": "last"}, {"edit_bos": False}], ids=str)
def test_tokens_that_another_program_does_not_tell_apart_are_refused(
    shelf: Path, tmp_path: Path, which: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    published = exported.publish(monkeypatch, exported.sae_folder(shelf))
    targets = [{"hook": "blocks.2.hook_resid_post", "sae": published, "features": [7]}]
    exported.adapter(shelf, tmp_path / "adapter", targets, **which)
    host, edits = edits_of(shelf, tmp_path / "adapter")
    for name, ending in ENDINGS.items():
        with pytest.raises(InputError, match=f"edits positions.*'{name}' adds at every token"):
            exports.write_edits(name, host, edits, tmp_path / f"x{ending}", {})
    exports.write_edits("safetensors", host, edits, tmp_path / "x.safetensors", {})
    told = ExportRecord.read(tmp_path / "x.safetensors.json")
    expected = {"positions": "all", "edit_bos": True} | which
    assert {"positions": told.positions, "edit_bos": told.edit_bos} == expected


@pytest.mark.parametrize("which", [{"positions": "last"}, {"edit_bos": False}, {}], ids=str)
def test_features_are_added_at_the_tokens_that_are_asked_for(
    which: dict[str, Any], setting: Setting, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"setting": setting, "coefficient": 2} | which
    record = exports.export([3], "safetensors", tmp_path / "x.safetensors", **asked)
    expected = {"positions": "all", "edit_bos": True} | which
    assert {"positions": record.positions, "edit_bos": record.edit_bos} == expected
    if which:
        with pytest.raises(InputError, match="what is exported edits positions"):
            exports.export([3], "gguf", tmp_path / "x.gguf", **asked)


def test_tokens_are_asked_for_of_features_alone(
    shelf: Path, setting: Setting, tmp_path: Path
) -> None:
    target = exported.target(exported.sae_folder(shelf), "blocks.2.hook_resid_post", [7])
    exported.adapter(shelf, tmp_path / "adapter", [target])
    out = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="with an adapter, which edits positions 'all'"):
        exports.export(tmp_path / "adapter", "safetensors", out, positions="last")
    with pytest.raises(InputError, match="--positions 'first' is not known"):
        exports.export([3], "safetensors", out, setting=setting, coefficient=2, positions="first")
    assert not out.exists()


def test_lm_eval_takes_an_adapter_as_the_page_says(shelf: Path, tmp_path: Path) -> None:
    huggingface = pytest.importorskip(
        "lm_eval.models.huggingface", reason="lm-eval is in no extra of cleansteer"
    )
    folder = exported.sae_folder(shelf)
    hook = "blocks.2.hook_resid_post"
    model = exported.adapter(shelf, tmp_path, [exported.target(folder, hook, FEATURES)])
    loaded = huggingface.HFLM(
        pretrained=str(exported.network_folder(shelf)),
        peft=str(tmp_path),
        tokenizer=tiny.tokenizer(),
        device="cpu",
        dtype="float32",
    )
    assert close(loaded._model_call(exported.TOKENS), exported.logits(model))
