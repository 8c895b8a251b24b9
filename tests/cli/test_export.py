"""``cleansteer export`` as a person calls it: files, sidecars, and refusals in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import exported
import lessons
import pytest
import tiny
import torch
import world
from cleansteer.core.settings import read_setting
from sae_lens import SAE
from safetensors.torch import load_file, save_file

HOOK = "blocks.2.hook_resid_post"
COEFFICIENT = 3.5
ENDINGS = {"safetensors": "x.safetensors", "gguf": "x.gguf"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose SAE stands at HOOK, an adapter on it, and the scale adapter that is none."""
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    with (folder / "tiny.toml").open("r+", encoding="utf-8") as file:
        text = file.read().replace('path = "primary"', f'path = "primary"\nhook = "{HOOK}"')
        file.seek(0)
        file.write(text)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy to spoil, with adapters whose paths lie in it."""
    copy = tmp_path / "world"
    shutil.copytree(built, copy)
    shutil.copytree(copy / "model", copy / "gpt2")
    targets = [exported.target(copy / "primary", HOOK, [2, 7, 11])]
    exported.adapter(copy, copy / "adapter", targets)
    exported.adapter(copy, copy / "scaling", targets, component="scale")
    return copy


def features(folder: Path, what: object = "7,2,11") -> tuple[object, ...]:
    return (what, "--setting", folder / "tiny.toml", "--coefficient", COEFFICIENT)


def vector_of(out: Path) -> torch.Tensor:
    if out.suffix == ".gguf":
        (vector,) = exported.directions(out).values()
    else:
        (vector,) = load_file(out).values()
    return vector


@pytest.mark.parametrize("form", ENDINGS)
def test_adapter_and_its_sidecar(
    form: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = folder / "made" / ENDINGS[form]
    arguments = ("export", folder / "adapter", "--format", form, "--out", out, "--json")
    assert world.run(monkeypatch, *arguments) == 0
    record = json.loads(capfd.readouterr().out)
    assert json.loads((out.parent / f"{out.name}.json").read_text("utf-8")) == record
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name, f"{out.name}.json"]
    assert record["file"] == {"name": out.name, "format": form}
    assert record["source"] == {"adapter": str(folder / "adapter")}
    (edit,) = record["edits"]
    assert (edit["hook"], edit["layer"], edit["site"]) == (HOOK, 2, "hook_resid_post")
    assert edit["features"] == [2, 7, 11]
    sae = SAE.load_from_disk(edit["sae"]["path"])
    torch.testing.assert_close(exported.decoded(sae, edit), vector_of(out))


@pytest.mark.parametrize("form", ENDINGS)
@pytest.mark.parametrize("given", ["list", "text", "allowlist"])
def test_features(
    form: str,
    given: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (folder / "chosen.txt").write_text("7\n2, 11\n", "utf-8")
    allowlist(folder)
    what = {"list": "7,2,11", "text": folder / "chosen.txt", "allowlist": folder / "clean.json"}
    out = folder / ENDINGS[form]
    arguments = (*features(folder, what[given]), "--format", form, "--out", out)
    assert world.run(monkeypatch, "export", *arguments) == 0
    shown = capfd.readouterr()
    assert shown.out == ""
    assert HOOK in shown.err
    assert "3 features" in shown.err
    decoder = SAE.load_from_disk(str(folder / "primary")).W_dec.detach()
    torch.testing.assert_close(vector_of(out), COEFFICIENT * decoder[[2, 7, 11]].sum(0))
    record = json.loads((folder / f"{out.name}.json").read_text("utf-8"))
    assert record["source"] == {
        "features": str(what[given]),
        "setting": "tiny",
        "coefficient": COEFFICIENT,
    }
    assert record["edits"][0]["scale"] == [COEFFICIENT] * 3


@pytest.mark.parametrize("given", ["adapter", "feature"])
def test_lm_eval(
    given: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    published = exported.publish(monkeypatch, folder / "primary")
    if given == "adapter":
        targets = [{"hook": HOOK, "sae": published, "features": [7]}]
        exported.adapter(folder, folder / "adapter", targets)
        arguments: tuple[object, ...] = (folder / "adapter",)
    else:
        setting = folder / "tiny.toml"
        text = setting.read_text("utf-8")
        names = "\n".join(f'{key} = "{value}"' for key, value in published.items())
        setting.write_text(text.replace('path = "primary"', names), "utf-8")
        arguments = features(folder, "7")
    out = folder / "x.csv"
    assert world.run(monkeypatch, "export", *arguments, "--format", "lm-eval", "--out", out) == 0
    record = json.loads((folder / "x.csv.json").read_text("utf-8"))
    shown = " ".join(capfd.readouterr().err.split())
    assert f"1 feature, norm {record['edits'][0]['norm']:.4g}, stored as h.2 note: " in shown
    assert record["notes"][0] in shown
    hookpoint, vector = exported.lm_eval_push(out)
    assert hookpoint == "h.2"
    sae = SAE.load_from_disk(str(folder / "primary"))
    torch.testing.assert_close(exported.decoded(sae, record["edits"][0]), vector)


def allowlist(folder: Path, name: str = "clean.json", **changes: object) -> None:
    made = lessons.allowlist(read_setting(folder / "tiny.toml"), [2, 7, 11])
    entries = json.loads(made.to_json())
    (folder / name).write_text(json.dumps(entries | changes), "utf-8")


def test_out_is_replaced_only_when_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = folder / "x.gguf"
    arguments = ("--format", "gguf", "--out", out)
    assert world.run(monkeypatch, "export", *features(folder, "2"), *arguments) == 0
    before, sidecar = out.read_bytes(), (folder / "x.gguf.json").read_bytes()
    capfd.readouterr()
    assert world.run(monkeypatch, "export", *features(folder, "7"), *arguments) == 2
    world.one_line(capfd, "x.gguf exists", "--overwrite")
    assert out.read_bytes() == before
    out.unlink()
    assert world.run(monkeypatch, "export", *features(folder, "7"), *arguments) == 2
    world.one_line(capfd, "x.gguf.json exists", "--overwrite")
    assert not out.exists()
    assert (folder / "x.gguf.json").read_bytes() == sidecar
    again = (*features(folder, "7"), *arguments, "--overwrite")
    assert world.run(monkeypatch, "export", *again) == 0
    assert out.read_bytes() != before
    assert json.loads((folder / "x.gguf.json").read_text("utf-8"))["edits"][0]["features"] == [7]


def test_setting_names_the_model_of_an_adapter_that_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config(base_model_name_or_path=None)(folder)
    arguments = ("export", folder / "adapter", "--format", "gguf", "--out", folder / "x.gguf")
    assert world.run(monkeypatch, *arguments) == 2
    world.one_line(capfd, "does not name its base model", "--setting")
    assert world.run(monkeypatch, *arguments, "--setting", folder / "tiny.toml") == 0
    record = json.loads((folder / "x.gguf.json").read_text("utf-8"))
    assert record["model"]["name"] == str(folder / "model")


def config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / "adapter" / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return changed


def biases(fill: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return weights(lambda tensors: tensors.update({k: fill(v) for k, v in tensors.items()}))


def remove(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def other_sae(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        made = {"seed": 9} | changes
        world.save_sae(tiny.sae("standard", HOOK, **made), folder / "primary")  # type: ignore[arg-type]

    return change


def at(hook: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tiny.toml"
        path.write_text(path.read_text("utf-8").replace(HOOK, hook), "utf-8")

    return change


def no_hook(folder: Path) -> None:
    at("")(folder)
    world.save_sae(tiny.sae("standard", ""), folder / "primary")


ADAPTERS = {
    "no config": (remove("adapter/adapter_config.json"), ("has no adapter_config.json",)),
    "config not JSON": (write("adapter/adapter_config.json", b"{"), ("not JSON",)),
    "another method": (config(peft_type="LORA"), ("'LORA'", "'CLEANSTEER'")),
    "another component": (config(component="scale"), ("'scale'", "depends on the activations")),
    "no targets": (config(targets=[]), ("no target",)),
    "targets no list": (config(targets=3), ("targets is 3", "a list")),
    "no weights": (
        remove("adapter/adapter_model.safetensors"),
        ("has no adapter_model.safetensors",),
    ),
    "weights broken": (write("adapter/adapter_model.safetensors", b"no"), ("are broken",)),
    "a weight missing": (weights(dict.clear), ("cleansteer_exit.bias is missing", "3 numbers")),
    "a weight too many": (
        weights(lambda tensors: tensors.update({"lm_head": torch.zeros(2)})),
        ("hold lm_head", "biases alone"),
    ),
    "a weight of another shape": (biases(lambda bias: bias[:2].clone()), ("(2,)", "3 numbers")),
    "NaN": (biases(lambda bias: bias * torch.nan), ("NaN", "finite")),
    "SAE missing": (remove("primary"), ("primary", "no cfg.json")),
    "SAE of another fingerprint": (other_sae(), ("fingerprint", "same SAE")),
    "model missing": (
        config(base_model_name_or_path="/nowhere/at/all"),
        ("/nowhere/at/all", "--setting"),
    ),
    "model no model": (remove("gpt2/config.json"), ("cannot be read", "configuration")),
    "hook that the model does not have": (
        config(targets=[exported.target(Path("x"), "blocks.9.hook_resid_pre")]),
        ("blocks.9.hook_resid_pre", "layers 0 to 3"),
    ),
}
FEATURES = {
    "SAE missing": (remove("primary"), ("primary", "no cfg.json")),
    "SAE that names no hook": (no_hook, ("does not name its hook",)),
    "SAE of another width": (other_sae(width=16), ("16", "32", "trained on this model")),
    "hook without a module": (at("blocks.2.hook_resid_mid"), ("hook_resid_mid", "no module")),
    "hook inside a layer": (at("blocks.2.hook_mlp_out"), ("hook_mlp_out", "not inside")),
    "layer 0": (at("blocks.0.hook_resid_post"), ("blocks.0.hook_resid_post", "layer 0's output")),
    "normalised at run time": (
        other_sae(normalize_activations="layer_norm"),
        ("'layer_norm'", "another vector at every token"),
    ),
    "model missing": (remove("model"), ("model 'model'", "not on this machine")),
}


def refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    expected: tuple[str, ...],
    *arguments: object,
) -> None:
    """Exit 2 with one line, and no file more than before."""
    before = sorted(folder.rglob("*"))
    capfd.readouterr()
    assert world.run(monkeypatch, "export", *arguments) == 2
    world.one_line(capfd, *expected)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("case", ADAPTERS)
def test_wrong_adapters(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    change, expected = ADAPTERS[case]
    change(folder)
    out = ("--format", "gguf", "--out", folder / "x.gguf")
    refused(folder, monkeypatch, capfd, expected, folder / "adapter", *out)


@pytest.mark.parametrize("case", FEATURES)
def test_features_of_a_wrong_setting(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    change, expected = FEATURES[case]
    change(folder)
    out = ("--format", "gguf", "--out", folder / "x.gguf")
    refused(folder, monkeypatch, capfd, expected, *features(folder), *out)


def test_an_allowlist_of_the_same_weights_elsewhere_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--setting", folder / "tiny.toml", "--coefficient", 3.5, "--format", "safetensors")
    allowlist(folder)
    known = lessons.allowlist(read_setting(folder / "tiny.toml")).model
    allowlist(folder, "moved.json", model=known.model_dump() | {"name": "moved"})
    for name in ("clean", "moved"):
        arguments = (folder / f"{name}.json", *given, "--out", folder / f"{name}.safetensors")
        assert world.run(monkeypatch, "export", *arguments) == 0
    clean, moved = (load_file(folder / f"{name}.safetensors") for name in ("clean", "moved"))
    assert clean.keys() == moved.keys()
    assert all(torch.equal(clean[name], moved[name]) for name in clean)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("1,x",), ("'1,x'", "1,2,3")),
        (("nowhere.txt",), ("'nowhere.txt'", "1,2,3")),
        (("nowhere.json",), ("nowhere.json", "does not exist")),
        (("tiny.toml",), ("tiny.toml", "1,2,3")),
        (("primary/sae_weights.safetensors",), ("sae_weights.safetensors", "UTF-8")),
        (("other.json",), ("other.json", "'cleansteer-allowlist/1'")),
        (("strange.json",), ("strange.json", "'features'", "list")),
        (("model.json",), ("the model gpt2 of fingerprint 0", "same")),
        (("elsewhere.json",), ("fingerprint", "0123456789abcdef")),
        (("otherhook.json",), ("otherhook.json is for blocks.3.hook_resid_post", HOOK)),
        (("empty.txt",), ("empty.txt: ''", "whole numbers")),
        (("7,96",), ("feature 96", "0 to 95")),
        (("7,7",), ("feature 7", "twice")),
        (("7", "--coefficient", "0"), ("coefficient 0", "other than 0")),
        (("7", "--coefficient", "nan"), ("coefficient nan", "other than 0")),
        (("7", "--coefficient", "1e39"), ("coefficient 1e+39", "number")),
        (("7", "--coefficient", "1e-50"), ("coefficient 1e-50", "number")),
        (("7", "--setting", "nothing"), ("'nothing'", "mini-gpt2-relu")),
        (("adapter",), ("--coefficient 3.5", "leave it out")),
        (("7", "--out", "x.bin"), ("x.bin", ".gguf", "--out")),
        (("7", "--out", "primary.gguf"), ("primary.gguf is a directory",)),
        (("7", "--format", "onnx"), ("'onnx'", "safetensors")),
        ((",".join(map(str, range(97))),), ("feature 96", "0 to 95")),
        (("7", "--format", "lm-eval", "--out", "x.pt"), ("x.pt", "expected .csv", "--out")),
        (
            ("7", "--format", "lm-eval", "--out", "x.csv"),
            ("primary", "local directory", "release and id", "--format safetensors", "PEFT"),
        ),
        (
            ("7,2", "--format", "lm-eval", "--out", "x.csv"),
            ("2 features", "exactly one", "export one feature", "--format safetensors", "PEFT"),
        ),
    ],
)
def test_wrong_arguments(
    given: tuple[str, ...],
    expected: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (folder / "other.json").write_text("{}", "utf-8")
    allowlist(folder, "strange.json", features="all")
    allowlist(folder, "model.json", model={"name": "gpt2", "fingerprint": "0"})
    sae = {"path": "primary", "fingerprint": "0123456789abcdef"}
    allowlist(folder, "elsewhere.json", sae=sae)
    allowlist(folder, "otherhook.json", hook="blocks.3.hook_resid_post")
    (folder / "empty.txt").write_text("\n", "utf-8")
    (folder / "primary.gguf").mkdir()
    monkeypatch.chdir(folder)
    usual = {
        "--setting": "tiny.toml",
        "--coefficient": "3.5",
        "--format": "gguf",
        "--out": "x.gguf",
    }
    usual |= dict(zip(given[1::2], given[2::2], strict=True))
    arguments = [part for pair in usual.items() for part in pair]
    refused(folder, monkeypatch, capfd, expected, given[0], *arguments)


@pytest.mark.parametrize(("left_out"), ["--setting", "--coefficient"])
def test_features_need_setting_and_coefficient(
    left_out: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = list(features(folder))
    place = arguments.index(left_out)
    del arguments[place : place + 2]
    out = ("--format", "gguf", "--out", folder / "x.gguf")
    refused(folder, monkeypatch, capfd, (f"without {left_out}",), *arguments, *out)


def test_the_component_scale_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ("--format", "safetensors", "--out", folder / "x.safetensors")
    expected = ("'scale'", "'bias'", "keep it as an adapter")
    refused(folder, monkeypatch, capfd, expected, folder / "scaling", *out)
