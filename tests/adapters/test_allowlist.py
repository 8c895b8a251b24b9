"""Allowlists: taken where they are of this setting, and refused where they are not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lessons
import pytest
import tiny
import torch
import world
from cleansteer.adapters import finetuning
from cleansteer.adapters.allowlist import Allowed
from cleansteer.core.errors import InputError
from cleansteer.core.networks import fingerprint_contents, fingerprint_tensors
from cleansteer.core.records import ModelSource, SaeSource
from cleansteer.core.settings import read_setting
from safetensors.torch import load_file

TRAIN = ("--component", "bias", "--max-steps", 2, "--batch-size", 4)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with an allowlist beside the setting."""
    folder = tmp_path_factory.mktemp("world")
    lessons.write(folder / "data.jsonl", lessons.texts(12))
    lessons.allowlist(read_setting(world.build(folder))).save(folder / "allowlist.json")
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(built, tmp_path / "world")


def train(patch: pytest.MonkeyPatch, folder: Path, *more: object) -> int:
    allowlist = ("--allowlist", folder / "allowlist.json", "--out", folder / "out")
    given = ("train", folder / "tiny.toml", "--data", folder / "data.jsonl")
    return world.run(patch, *given, *allowlist, *TRAIN, *more)


def contents(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "allowlist.json").read_text("utf-8"))


def test_that_of_the_setting_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = contents(folder)
    assert train(monkeypatch, folder) == 0
    record = json.loads((folder / "out" / "training.json").read_text("utf-8"))
    assert record["features"] == record["allowed"] == known["features"]
    assert len(known["features"]) == 7
    assert record["trust"] == known["trust"]
    (bias,) = load_file(folder / "out" / "adapter_model.safetensors").values()
    assert bias.shape == (7,)
    config = json.loads((folder / "out" / "adapter_config.json").read_text("utf-8"))
    assert config["targets"][0]["features"] == known["features"]
    assert config["targets"][0]["sae"]["fingerprint"] == known["sae"]["fingerprint"]
    card = (folder / "out" / "README.md").read_text("utf-8")
    assert f"The allowlist's verdict: **{known['trust']['overall']}**" in card
    assert ("were not trusted" in card) == (known["trust"]["overall"] == "not trusted")
    for axis in known["trust"]["axes"]:
        assert axis in card


def test_select_takes_some_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(monkeypatch, folder, "--select", 3) == 0
    record = json.loads((folder / "out" / "training.json").read_text("utf-8"))
    assert len(record["features"]) == 3
    assert set(record["features"]) < set(contents(folder)["features"])
    assert record["allowed"] == contents(folder)["features"]
    assert "3 of 96 (largest gradients of 7 allowed)" in (folder / "out" / "README.md").read_text()


@pytest.mark.parametrize("overall", ["trusted", "not trusted"])
def test_its_verdict_is_told(
    overall: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = contents(folder)
    found["trust"]["overall"] = overall
    (folder / "allowlist.json").write_text(json.dumps(found), "utf-8")
    assert train(monkeypatch, folder) == 0
    assert f"Allowlist: {overall}" in capfd.readouterr().err
    card = (folder / "out" / "README.md").read_text("utf-8")
    assert ("were not trusted" in card) == (overall == "not trusted")


def changed(*keys: str, to: Any = None, lost: bool = False) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = contents(folder)
        inner = found
        for key in keys[:-1]:
            inner = inner[key]
        if lost:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = to
        (folder / "allowlist.json").write_text(json.dumps(found), "utf-8")

    return change


def other_sae(folder: Path) -> None:
    lessons.save_sae(folder / "primary", seed=9)


def of_a_release(folder: Path) -> None:
    sae = {"release": "gpt2-small-res-jb", "id": lessons.HOOK, "fingerprint": "00"}
    changed("sae", to=sae)(folder)


def another_hook(folder: Path) -> None:
    path = folder / "tiny.toml"
    text = path.read_text("utf-8")
    new = 'path = "primary"\nhook = "blocks.2.hook_resid_pre"'
    path.write_text(text.replace('path = "primary"', new, 1), "utf-8")


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "missing": (lambda f: (f / "allowlist.json").unlink(), ("allowlist.json", "does not exist")),
    "no JSON": (lambda f: (f / "allowlist.json").write_text("{") and None, ("is not JSON",)),
    "a list": (lambda f: (f / "allowlist.json").write_text("[1]") and None, ("no JSON object",)),
    "wrong format": (changed("format", to="cleansteer-allowlist/9"), ("allowlist/9", "expected")),
    "no format": (changed("format", lost=True), ("format None", "expected")),
    "no model": (changed("model", lost=True), ("'model'", "is missing", "anew")),
    "no model's name": (changed("model", "name", lost=True), ("'model.name'", "is missing")),
    "model no object": (changed("model", to="gpt2"), ("'model'", "anew")),
    "no SAE": (changed("sae", lost=True), ("'sae'", "is missing")),
    "no SAE's fingerprint": (changed("sae", "fingerprint", lost=True), ("'sae.fingerprint'",)),
    "no hook": (changed("hook", lost=True), ("'hook'", "is missing")),
    "no features": (changed("features", lost=True), ("'features'", "is missing")),
    "no trust": (changed("trust", lost=True), ("'trust'", "is missing")),
    "trust no object": (changed("trust", to="high"), ("'trust'", "anew")),
    "trust without verdict": (changed("trust", "overall", lost=True), ("'trust.overall'",)),
    "trust without axes": (changed("trust", "axes", lost=True), ("'trust.axes'",)),
    "axes no objects": (changed("trust", "axes", to=["x"]), ("'trust.axes'",)),
    "another SAE": (other_sae, ("for the SAE primary of fingerprint", "make it anew")),
    "SAE of a release": (of_a_release, ("SAE gpt2-small-res-jb/", "of fingerprint 00", "same")),
    "another hook": (another_hook, (f"is for {lessons.HOOK}", "blocks.2.hook_resid_pre")),
    "empty": (changed("features", to=[]), ("'features'", "at least 1")),
    "repeated": (changed("features", to=[4, 2, 4]), ("feature 4 is repeated", "once")),
    "negative": (changed("features", to=[4, -2]), ("-2 is no index", "whole numbers")),
    "a fraction": (changed("features", to=[1.5]), ("1.5 is no index",)),
    "true": (changed("features", to=[True]), ("True is no index",)),
    "words": (changed("features", to=["1"]), ("'1' is no index",)),
    "no list": (changed("features", to="all"), ("'features'", "valid list")),
    "a number": (changed("features", to=3), ("'features'", "valid list")),
    "out of range": (changed("features", to=[5, 96]), ("feature 96", "0 to 95")),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_before_a_model_is_loaded(
    case: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def unexpected(*given: Any, **named: Any) -> Any:
        raise AssertionError("a model is loaded")

    change, expected = CASES[case]
    change(folder)
    monkeypatch.setattr(finetuning, "load_network", unexpected)
    capfd.readouterr()
    assert train(monkeypatch, folder) == 2
    world.one_line(capfd, *expected)
    assert not (folder / "out").exists()


def test_another_model_of_the_same_name_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    network = tiny.network()
    network.transformer.h[3].mlp.c_fc.bias.data[0] += 1
    network.save_pretrained(folder / "model")
    capfd.readouterr()
    assert train(monkeypatch, folder) == 2
    err = capfd.readouterr().err.splitlines()[-1]
    assert "made for the model model of fingerprint" in err
    assert "make it anew" in err
    assert not (folder / "out").exists()


def test_only_allowed_latents_are_edited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream changes by a sum of allowed decoder rows alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert train(monkeypatch, folder, "--learning-rate", 0.5) == 0
    base = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    seen = []
    model = PeftModel.from_pretrained(base, folder / "out").eval()
    layer = base.transformer.h[1].base_layer
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ids = tiny.contexts(4)
    model(ids, use_cache=False)
    with model.disable_adapter():
        model(ids, use_cache=False)
    change = (seen[0] - seen[1]).flatten(0, 1)
    rows = tiny.sae("standard", lessons.HOOK).W_dec[contents(folder)["features"]]
    known = torch.linalg.lstsq(rows.T, change.T).solution.T @ rows
    assert change.abs().max() > 0.1
    torch.testing.assert_close(known, change, rtol=1e-3, atol=1e-4)


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    known = contents(folder)
    allowed = Allowed.by(folder / "allowlist.json")
    assert allowed.features == known["features"]
    assert allowed.allowlist is not None
    assert json.loads(allowed.allowlist.to_json()) == known
    assert allowed.name == f"allowlist {folder / 'allowlist.json'}"
    in_memory = Allowed.by(allowed.allowlist)
    assert (in_memory.features, in_memory.name) == (allowed.features, "allowlist")


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_however_an_editor_saves_a_file(start: bytes, end: str, last: bool, folder: Path) -> None:
    path = folder / "allowlist.json"
    known = Allowed.by(path)
    text = path.read_text("utf-8").strip().replace("\n", end) + end * last
    path.write_bytes(start + text.encode())
    assert Allowed.by(path) == known


def test_of_an_sae_in_memory_the_fingerprint_decides(folder: Path) -> None:
    known = lessons.allowlist(read_setting(folder / "tiny.toml"))
    source = SaeSource(in_memory="sae", fingerprint=known.sae.fingerprint)
    allowed = Allowed.by(known.model_copy(update={"sae": source}))
    allowed.check_sae(source.fingerprint, lessons.HOOK)
    with pytest.raises(InputError, match="for the SAE given in memory of fingerprint"):
        allowed.check_sae("0123456789abcdef", lessons.HOOK)


def parameters(dtype: torch.dtype, change: float = 0.0) -> dict[str, torch.Tensor]:
    network = tiny.network()
    network.transformer.h[3].mlp.c_fc.weight.data *= 1 + change
    return dict(network.to(dtype).named_parameters())


@pytest.mark.parametrize("made_in", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("used_in", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_is_itself_in_every_format(
    made_in: torch.dtype, used_in: torch.dtype, folder: Path
) -> None:
    known = lessons.allowlist(read_setting(folder / "tiny.toml"))
    made = parameters(made_in)
    source = ModelSource(
        name="elsewhere",
        fingerprint=fingerprint_tensors(made),
        contents=fingerprint_contents(made),
    )
    allowed = Allowed.by(known.model_copy(update={"model": source}))
    allowed.check_model(parameters(used_in))
    with pytest.raises(InputError, match="for the model elsewhere of fingerprint"):
        allowed.check_model(parameters(used_in, change=1e-3))


def test_older_allowlists_know_a_model_in_one_format(folder: Path) -> None:
    found = contents(folder)
    del found["model"]["contents"]
    (folder / "allowlist.json").write_text(json.dumps(found), "utf-8")
    allowed = Allowed.by(folder / "allowlist.json")
    assert allowed.allowlist is not None
    assert json.loads(allowed.allowlist.to_json()) == found
    allowed.check_model(parameters(torch.float32))
    with pytest.raises(InputError, match="make it anew"):
        allowed.check_model(parameters(torch.bfloat16))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_weights_elsewhere_are_the_same_model(
    dtype: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model").rename(folder / "moved")
    (folder / "primary").rename(folder / "renamed")
    path = folder / "tiny.toml"
    text = path.read_text("utf-8").replace('name = "model"', f'name = "moved"\ndtype = "{dtype}"')
    path.write_text(text.replace('path = "primary"', 'path = "renamed"'), "utf-8")
    assert train(monkeypatch, folder) == 0
    record = json.loads((folder / "out" / "training.json").read_text("utf-8"))
    assert record["allowed"] == contents(folder)["features"]
