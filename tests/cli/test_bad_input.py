"""Bad input gets one clear line, exit code 2, and nothing is half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
import world
from cleansteer.core.networks import quiet_libraries
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "world"
    shutil.copytree(built, copy)
    return copy


def replace(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tiny.toml"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def truncate(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def other_sae(**shape: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        hook = shape.pop("hook", "blocks.1.hook_resid_pre")
        world.save_sae(tiny.sae("standard", hook, **shape), folder / "primary")  # type: ignore[arg-type]

    return change


def not_a_number(folder: Path) -> None:
    world.overwrite_tensor(folder / "primary", b_enc=torch.full((96,), torch.nan))


def rewrite(
    name: str, change: Callable[[dict[str, torch.Tensor]], object]
) -> Callable[[Path], None]:
    def rewritten(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return rewritten


def sae_without(name: str) -> Callable[[Path], None]:
    return rewrite("primary/sae_weights.safetensors", lambda tensors: tensors.pop(name))


def sae_with(**more: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: world.overwrite_tensor(folder / "primary", **more)


def model_without(name: str) -> Callable[[Path], None]:
    return rewrite("model/model.safetensors", lambda tensors: tensors.pop(name))


def configured(**entries: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | entries), "utf-8")

    return change


def an_encoder(folder: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=tiny.VOCABULARY, intermediate_size=48, **shape)
    with quiet_libraries():
        BertLMHeadModel(config).save_pretrained(folder / "model")


def jsonl(line: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "texts.jsonl").write_text(line + "\n", "utf-8")
        replace('"texts.txt"', '"texts.jsonl"')(folder)

    return change


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "broken TOML": (write("tiny.toml", b"name = [\n"), ("tiny.toml", "not valid TOML")),
    "setting not UTF-8": (write("tiny.toml", b"name = '\xff'\n"), ("not valid TOML",)),
    "unknown key": (
        replace("min_chars", "min_char"),
        ("unknown key 'corpus.min_char'", "min_chars"),
    ),
    "unknown section": (replace("[steering]", "[stering]"), ("unknown key 'stering'", "steering")),
    "missing key": (replace('name = "tiny"', ""), ("'name' is missing",)),
    "wrong type": (replace("n_contexts = 96", 'n_contexts = "96"'), ("corpus.n_contexts", "'96'")),
    "negative": (replace("n_features = 60", "n_features = -1"), ("steering.n_features", "-1")),
    "alpha 0": (replace("alpha = 0.7", "alpha = 0"), ("alpha", "steers nothing")),
    "alpha NaN": (replace("alpha = 0.7", "alpha = nan"), ("steering.alpha", "nan")),
    "two sources": (
        replace('path = "primary"', 'path = "primary"\nrelease = "r"\nid = "i"'),
        ("either `path`, or `release`",),
    ),
    "no corpus source": (replace('path = "texts.txt"', ""), ("exactly one of",)),
    "model missing": (replace('name = "model"', 'name = "./nowhere"'), ("nowhere", "not exist")),
    "model not on hub": (replace('name = "model"', 'name = "no/such"'), ("no/such",)),
    "SAE missing": (replace('path = "primary"', 'path = "nowhere"'), ("nowhere", "cfg.json")),
    "SAE of another width": (other_sae(width=16), ("16", "32", "trained on this model")),
    "layer out of range": (
        other_sae(hook="blocks.7.hook_resid_pre"),
        ("blocks.7.hook_resid_pre", "layers 0 to 3"),
    ),
    "hook that does not exist": (
        replace('path = "primary"', 'path = "primary"\nhook = "blocks.1.hook_nothing"'),
        ("hook_nothing", "not supported"),
    ),
    "downstream below": (
        replace('path = "downstream"', 'path = "downstream"\nhook = "blocks.0.hook_resid_pre"'),
        ("blocks.0.hook_resid_pre", "lies below"),
    ),
    "corpus missing": (remove("texts.txt"), ("texts.txt", "does not exist")),
    "fresh corpus missing": (remove("fresh.txt"), ("fresh.txt", "does not exist")),
    "corpus empty": (write("texts.txt", b""), ("texts.txt", "is empty")),
    "corpus blank": (write("texts.txt", b"\n\n \n"), ("no text of at least 20",)),
    "corpus not UTF-8": (write("texts.txt", b"\xff\xfe" * 100), ("not UTF-8", "byte 0")),
    "corpus too small": (
        replace("n_contexts = 96", "n_contexts = 9600"),
        ("gives 315 contexts", "9600"),
    ),
    "fresh corpus too small": (
        replace("n_contexts = 40", "n_contexts = 4000"),
        ("gives 315 contexts", "4000"),
    ),
    "fresh corpus is the corpus": (
        replace('path = "fresh.txt"', 'path = "texts.txt"'),
        ("texts.txt", "that is not in [corpus]"),
    ),
    "centred neither true nor false": (
        replace('path = "primary"', 'path = "primary"\ncentred = "maybe"'),
        ("sae.centred", "'maybe'", "'auto'"),
    ),
    "corpus of another kind": (
        replace('path = "texts.txt"', 'path = "tiny.toml"'),
        (".toml", ".jsonl"),
    ),
    "contexts longer than the model": (
        replace("context_length = 9", "context_length = 99"),
        ("99", "64 positions"),
    ),
    "too few contexts for the types": (
        replace("contexts_per_type = 6", "contexts_per_type = 60"),
        ("96", "180"),
    ),
    "package not installed": (
        replace('path = "texts.txt"', 'packages = ["no_such_package"]'),
        ("no_such_package", "not installed"),
    ),
    "truncated SAE": (truncate("primary/sae_weights.safetensors"), ("primary", "broken")),
    "truncated model": (truncate("model/model.safetensors"), ("model", "broken")),
    "SAE with a missing tensor": (sae_without("W_dec"), ("W_dec",)),
    "SAE with an unknown tensor": (sae_with(W_skip=torch.ones(3)), ("W_skip",)),
    "SAE with a misshapen tensor": (sae_with(b_enc=torch.ones(3)), ("b_enc", "96")),
    "model with a missing tensor": (
        model_without("transformer.h.1.mlp.c_fc.bias"),
        ("1 tensor missing (transformer.h.1.mlp.c_fc.bias)",),
    ),
    "quantised model": (
        configured(quantization_config={"quant_method": "gptq", "bits": 4}),
        ("model", "is quantised (gptq)"),
    ),
    "LoRA": (write("model/adapter_config.json", b"{}"), ("model", "is a PEFT adapter")),
    "encoder": (an_encoder, ("'bert'", "as encoders do")),
    "name that is a path": (
        replace('name = "tiny"', 'name = "../up"'),
        ("'../up'", "without slashes"),
    ),
    "half a character": (
        jsonl('{"text": "a cut emoji \\ud83d"}'),
        ("texts.jsonl, line 1", "half of a character"),
    ),
    "SAE with NaN": (not_a_number, ("b_enc", "NaN")),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_exit_2_and_nothing_written(
    case: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change, expected = CASES[case]
    change(folder)
    run = folder / "run"
    assert world.run(monkeypatch, "screen", folder / "tiny.toml", "--run", run) == 2
    world.one_line(capfd, *expected)
    assert not run.exists() or not list(run.iterdir())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("screen", "no-such-setting"), ("no-such-setting", "mini-gpt2-relu")),
        (("screen", "nowhere/x.toml"), ("nowhere/x.toml", "does not exist")),
        (("screen",), ("SETTING",)),
        (("screen", "mini-gpt2-relu", "--labels", "many"), ("many",)),
        (("screen", "mini-gpt2-relu", "--labels", "-1"), ("n_features", "-1")),
        (("screen", "mini-gpt2-relu", "--device", "tpu"), ("tpu", "cpu")),
        (("screen", "mini-gpt2-relu", "--nonsense"), ("--nonsense",)),
        (("nonsense",), ("nonsense",)),
        (("evaluate", "mini-gpt2-relu", "--contexts", "some"), ("some", "mixed")),
        (("evaluate", "mini-gpt2-relu", "--mode", "push"), ("push", "clamp_q95")),
        (("evaluate", "mini-gpt2-relu", "--alpha", "nan"), ("alpha",)),
        (("evaluate", "mini-gpt2-relu", "--features", "1,x"), ("x", "whole numbers")),
        (("evaluate", "mini-gpt2-relu", "--features", "-3"), ("-3",)),
        (("evaluate", "mini-gpt2-relu", "--features", "no.txt"), ("no.txt", "no such file exists")),
        (("evaluate", "mini-gpt2-relu", "--sample", "3", "--all"), ("exclude each other",)),
        (("rank", "nowhere"), ("nowhere", "holds no run")),
        (("allowlist", "nowhere", "--top", "3"), ("nowhere", "holds no run")),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...],
    expected: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert world.run(monkeypatch, *arguments) == 2
    world.one_line(capfd, *expected)
    assert not list(tmp_path.iterdir())


def test_feature_out_of_range(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("evaluate", folder / "tiny.toml", "--run", folder / "run", "--features", "5,96")
    assert world.run(monkeypatch, *arguments) == 2
    err = capfd.readouterr().err
    assert "feature 96 is out of range, expected 0 to 95" in err
    assert not (folder / "run" / "labels.parquet").exists()


def test_run_of_another_setting_is_refused_and_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("features", folder / "tiny.toml", "--run", folder / "run")
    assert world.run(monkeypatch, *arguments) == 0
    before = (folder / "run" / "features.parquet").read_bytes()
    replace("alpha = 0.7", "alpha = 0.8")(folder)
    capfd.readouterr()
    assert world.run(monkeypatch, *arguments) == 2
    assert "steering.alpha: 0.7 -> 0.8" in capfd.readouterr().err
    assert (folder / "run" / "features.parquet").read_bytes() == before
    assert world.run(monkeypatch, *arguments, "--overwrite") == 0


def test_overwrite_deletes_nothing_before_all_is_known_to_be_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("features", folder / "tiny.toml", "--run", folder / "run")
    assert world.run(monkeypatch, *arguments) == 0
    before = (folder / "run" / "features.parquet").read_bytes()
    replace('name = "model"', 'name = "./nowhere"')(folder)
    assert world.run(monkeypatch, *arguments, "--overwrite") == 2
    assert (folder / "run" / "features.parquet").read_bytes() == before


def test_run_with_another_sae_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = folder / "run"
    assert world.run(monkeypatch, "features", folder / "tiny.toml", "--run", run) == 0
    other_sae(seed=9)(folder)
    capfd.readouterr()
    assert world.run(monkeypatch, "screen", folder / "tiny.toml", "--run", run) == 2
    assert "another sae" in capfd.readouterr().err


def test_a_directory_that_is_no_run_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("screen", folder / "tiny.toml", "--run", folder / "model", "--overwrite")
    assert world.run(monkeypatch, *arguments) == 2
    assert "holds no run" in capfd.readouterr().err
    assert json.loads((folder / "model" / "config.json").read_text("utf-8"))
