"""Training through the command line: what it writes, and what it tells."""

import shutil
from pathlib import Path
from typing import Any

import lessons
import pytest
import teaching
import tiny
import torch
import world
from cleansteer.adapters import finetuning, reference
from cleansteer.adapters.selection import fitting_beta2, survey
from cleansteer.core.training import TrainingOptions
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROUNDING = 1e-5
"""Relative: float32 losses of padded batches against those of one text at a time."""
BFLOAT16 = 2e-3
"""Relative: of sums of log-probabilities, padded against one text at a time, 8 bits of precision."""
FEATURES = ",".join(map(str, lessons.ACTIVE))
LEARNS = ("--component", "mlp", "--learning-rate", 0.05, "--max-steps", 20, "--evaluations", 4)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teaching.build(tmp_path_factory.mktemp("world"))


def base(built: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(built / "model", dtype=dtype).eval()


def opened(built: Path, out: Path, dtype: torch.dtype = torch.float32) -> Any:
    return PeftModel.from_pretrained(base(built, dtype), out).eval()


def dpo_loss(model: Any, reference: Any, rows: lessons.Rows, beta: float) -> float:
    """Rafailov et al., arXiv:2305.18290, equation 7, one text at a time."""
    losses = []
    for row in rows:
        skip = len(row["prompt"].split())
        gain = {
            kind: lessons.log_probabilities(model, row["prompt"] + row[kind], skip).sum()
            - lessons.log_probabilities(reference, row["prompt"] + row[kind], skip).sum()
            for kind in ("chosen", "rejected")
        }
        margin = beta * (gain["chosen"] - gain["rejected"])
        losses.append(-torch.nn.functional.logsigmoid(margin))
    return float(torch.stack(losses).mean())


@pytest.fixture(scope="module")
def taught(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A training of each objective."""
    folder = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        for objective, held in (("sft", "held"), ("dpo", "held-dpo")):
            more = ("--data", built / f"{objective}.jsonl", "--eval-data", built / f"{held}.jsonl")
            size = ("--batch-size", 4) if objective == "sft" else ()  # several when scored
            arguments = (*LEARNS, *more, *size, "--objective", objective, "--features", FEATURES)
            assert teaching.train(patch, built, folder / objective, *arguments) == 0
    return {"sft": folder / "sft", "dpo": folder / "dpo"}


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_losses_fall_and_are_those_of_the_saved_adapter(
    objective: str, built: Path, taught: dict[str, Path]
) -> None:
    out = taught[objective]
    assert {path.name for path in out.iterdir()} == teaching.FILES
    record = teaching.record_of(out)
    found, untouched = opened(built, out), base(built)
    held = lessons.ROWS[objective](6, seed=9)
    if objective == "sft":
        before, after = (lessons.mean_loss(model, held) for model in (untouched, found))
    else:
        before, after = (dpo_loss(model, untouched, held, 0.1) for model in (untouched, found))
        assert before == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert after < before - 0.01
    assert record["metrics"]["before"] == pytest.approx(before, rel=ROUNDING)
    assert record["metrics"]["after"] == pytest.approx(after, rel=ROUNDING)
    history = record["history"]
    evaluated = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    assert list(evaluated) == [0, 5, 10, 15, 20]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert record["n_steps"] == 20
    tensors = load_file(out / "adapter_model.safetensors")
    assert record["n_parameters"] == sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize(("bos", "begins"), [("--bos", True), ("--no-bos", False)])
def test_texts_begin_with_bos_unless_told_otherwise(
    bos: str, begins: bool, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = ("--eval-data", built / "held.jsonl", "--baseline", "ia3")
    assert teaching.train(monkeypatch, built, tmp_path / "out", *teaching.SHORT, *held, bos) == 0
    rows = lessons.texts(6, seed=9)
    before, other = (lessons.mean_loss(base(built), rows, bos=b) for b in (begins, not begins))
    assert teaching.record_of(tmp_path / "out")["metrics"]["before"] == pytest.approx(
        before, rel=ROUNDING
    )
    assert abs(before - other) > 100 * ROUNDING * before
    assert ("BOS in front" in (tmp_path / "out" / "README.md").read_text("utf-8")) is begins


@pytest.mark.parametrize(("bos", "begins"), [("--bos", True), ("--no-bos", False)])
def test_the_reference_of_the_drift_begins_as_the_examples_do(
    bos: str, begins: bool, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    values_at = reference.values_at

    def watching(network: Any, hook: str, rows: list[list[int]], *others: Any) -> Any:
        seen.extend(rows)
        return values_at(network, hook, rows, *others)

    monkeypatch.setattr(reference, "values_at", watching)
    more = ("--drift", 0.1, "--reference", built / "reference.jsonl", bos)
    assert teaching.train(monkeypatch, built, tmp_path / "out", *teaching.SHORT, *more) == 0
    words = [row["text"].split() for row in lessons.texts(8, seed=5)]
    assert seen == [[0] * begins + [int(word[1:]) for word in row] for row in words]


def test_in_bfloat16(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is computed in bfloat16; the adapter's own numbers stay float32."""
    text = (built / "tiny.toml").read_text("utf-8")
    assert text.count("[model]\n") == 1
    setting = built / "bfloat16.toml"
    setting.write_text(text.replace("[model]\n", '[model]\ndtype = "bfloat16"\n'), "utf-8")
    held = ("--eval-data", built / "held.jsonl", *LEARNS)
    arguments = ("train", setting, "--data", built / "sft.jsonl", "--out", tmp_path / "out", *held)
    assert world.run(monkeypatch, *arguments) == 0
    metrics = teaching.record_of(tmp_path / "out")["metrics"]
    assert metrics["after"] < metrics["before"] - 0.01
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    model = opened(built, tmp_path / "out", torch.bfloat16)
    assert {p.dtype for p in model.get_base_model().parameters()} >= {torch.bfloat16}
    after = lessons.mean_loss(model, lessons.texts(6, seed=9))
    assert metrics["after"] == pytest.approx(after, rel=BFLOAT16)


def test_training_texts_become_likelier(built: Path, taught: dict[str, Path]) -> None:
    rows = lessons.texts(24)
    before, after = (
        lessons.mean_loss(model, rows) for model in (base(built), opened(built, taught["sft"]))
    )
    assert after < before - 0.05


def test_only_the_adapter_changes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    load = finetuning.load_network

    def loaded(*arguments: Any, **named: Any) -> Any:
        network, tokenizer = load(*arguments, **named)
        tensors = [*network.parameters(), *network.buffers()]
        kept.extend((tensor, tensor.detach().clone()) for tensor in tensors)
        return network, tokenizer

    monkeypatch.setattr(finetuning, "load_network", loaded)
    options = ("--component", "mlp", "--option", "hidden=4", "--select", 5, *teaching.SHORT)
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    assert len(kept) > 40
    assert all(torch.equal(tensor, before) for tensor, before in kept)
    assert not any(tensor.requires_grad for tensor, _ in kept)
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(".cleansteer_entry." in name for name in tensors)
    assert any(bool(tensor.any()) for name, tensor in tensors.items() if "outer" in name)


def test_the_best_evaluation_is_kept(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = lessons.texts(6, seed=9, among=599)
    options = (
        *teaching.OVERFITS,
        "--eval-data",
        built / "wide.jsonl",
        "--max-steps",
        8,
        "--evaluations",
        8,
    )
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    record = teaching.record_of(tmp_path / "out")
    losses = [entry["eval_loss"] for entry in record["history"] if "eval_loss" in entry][1:]
    assert min(losses) not in (losses[-1], losses[0]), losses
    assert record["metrics"]["after"] == min(losses)
    after = lessons.mean_loss(opened(built, tmp_path / "out"), rows, bos=False)
    assert after == pytest.approx(min(losses), rel=ROUNDING)


def test_patience_ends_it(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*teaching.OVERFITS, "--eval-data", built / "wide.jsonl", "--max-steps", 20)
    count = ("--evaluations", 20, "--patience", 2)
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options, *count) == 0
    record = teaching.record_of(tmp_path / "out")
    losses = [entry["eval_loss"] for entry in record["history"] if "eval_loss" in entry][1:]
    assert record["n_steps"] == len(losses) < 20
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 2


def test_json_goes_to_stdout_alone_and_words_to_stderr(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = (*teaching.SHORT, "--features", FEATURES)
    capfd.readouterr()
    assert teaching.train(monkeypatch, built, tmp_path / "one", *options, "--json") == 0
    out, err = capfd.readouterr()
    assert teaching.strict(out) == teaching.record_of(tmp_path / "one")
    assert "{" not in err
    assert teaching.train(monkeypatch, built, tmp_path / "other", *options) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "scale on 8 features, 8 parameters" in err
    assert "6 steps" in err
    teaching.assert_same(tmp_path / "one", tmp_path / "other")


def test_features_that_never_fire_are_counted(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world.overwrite_tensor(
        shutil.copytree(built, tmp_path / "world") / "primary",
        b_enc=torch.where(torch.arange(96) % 2 == 0, 5.0, -100.0),
    )
    folder = tmp_path / "world"
    assert (
        teaching.train(
            monkeypatch, folder, tmp_path / "out", *teaching.SHORT, "--features", "0,1,2,3,4,5,7"
        )
        == 0
    )
    assert "4 of them never fire on the data and cannot learn" in " ".join(
        capfd.readouterr().err.split()
    )
    record = teaching.record_of(tmp_path / "out")
    assert record["never_fire"] == 4
    assert record["beta2"] == 0.99
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert (next(iter(tensors.values())) != 0).tolist() == [True, False, True, False, True, 0, 0]


def test_seed_decides(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = ("--eval-data", built / "held.jsonl", *teaching.SHORT)
    for name, seed in (("one", 1), ("two", 2)):
        assert teaching.train(monkeypatch, built, tmp_path / name, *held, "--seed", seed) == 0
    one, two = (teaching.record_of(tmp_path / name) for name in ("one", "two"))
    assert one["metrics"]["before"] == two["metrics"]["before"]
    assert one["metrics"]["after"] != two["metrics"]["after"]
    assert [entry.get("loss") for entry in one["history"]] != [
        entry.get("loss") for entry in two["history"]
    ], "another order"


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_selected_are_the_largest_gradients_on_the_training_data(
    objective: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = built / {"sft": "held.jsonl", "dpo": "held-dpo.jsonl"}[objective]
    data = ("--data", built / f"{objective}.jsonl", "--eval-data", held)
    options = ("--objective", objective, "--select", 5, "--component", "switch")
    assert (
        teaching.train(monkeypatch, built, tmp_path / "out", *teaching.SHORT, *data, *options) == 0
    )
    with torch.enable_grad():
        found = survey(
            base(built),
            tiny.tokenizer(),
            lessons.config(built / "primary", "bias", None),
            TrainingOptions(objective=objective, batch_size=4),
            lessons.examples(objective, 24),
        )
    order = sorted(range(96), key=lambda feature: (-abs(found.gradient[feature]), feature))
    record = teaching.record_of(tmp_path / "out")
    assert record["features"] == sorted(order[:5]) != order[:5]
    assert record["beta2"] == fitting_beta2(found.step_share[sorted(order[:5])], "switch")
    assert record["options"]["beta2"] == 0.999, "what was asked for stays beside it"


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_baselines(
    name: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    more = ("--rank", 2) if name == "lora" else ()
    held = ("--eval-data", built / "held.jsonl")
    assert (
        teaching.train(monkeypatch, built, out, *teaching.SHORT, "--baseline", name, *more, *held)
        == 0
    )
    assert f"{name}, " in capfd.readouterr().err
    assert {path.name for path in out.iterdir()} == teaching.BASELINE_FILES
    record = teaching.record_of(out)
    assert record["baseline"] == name
    # GPT-2's fused projection of attention: 2 (32 + 96) a layer; IA3 also scales the MLP's inputs.
    assert record["n_parameters"] == {"lora": 4 * 2 * (32 + 96), "ia3": 4 * (96 + 128)}[name]
    model = opened(built, out)
    after = lessons.mean_loss(model, lessons.texts(6, seed=9))
    assert record["metrics"]["after"] == pytest.approx(after, rel=ROUNDING)
    assert record["metrics"]["after"] < record["metrics"]["before"]
    text = (out / "README.md").read_text("utf-8")
    assert f"A baseline, {name} of PEFT" in text
    assert "import cleansteer" not in text


def test_prompts_and_completions(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only completions count, their end included."""
    held = lessons.write(tmp_path / "held.jsonl", lessons.completions(5, seed=9))
    data = ("--data", built / "pairs.jsonl", "--eval-data", held)
    assert teaching.train(monkeypatch, built, tmp_path / "out", *teaching.SHORT, *data) == 0
    record, model = teaching.record_of(tmp_path / "out"), opened(built, tmp_path / "out")
    total = lessons.mean_loss(model, lessons.completions(5, seed=9))
    assert record["metrics"]["after"] == pytest.approx(total, rel=ROUNDING)


def test_all_options_together(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers computed twice change nothing, with penalties too."""
    more = ("--l1", 0.01, "--drift", 0.1, "--reference", built / "reference.jsonl")
    options = (
        "--component",
        "lowrank",
        "--option",
        "rank=3",
        "--select",
        7,
        *teaching.SHORT,
        *more,
    )
    assert teaching.train(monkeypatch, built, tmp_path / "one", *options, "--accumulation", 2) == 0
    again = (*options, "--accumulation", 2, "--gradient-checkpointing")
    assert teaching.train(monkeypatch, built, tmp_path / "two", *again) == 0
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor)
    assert teaching.record_of(tmp_path / "one")["options"]["gradient_checkpointing"] is False


def test_examples_that_are_cut_to_nothing_are_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    short = [row for row in lessons.completions(24) if len(row["prompt"].split()) < 3]
    others = [row | {"completion": row["completion"] + " w7"} for row in short[:3]]
    held = lessons.write(tmp_path / "held.jsonl", others)
    arguments = (
        "--data",
        built / "pairs.jsonl",
        "--eval-data",
        held,
        *teaching.SHORT,
        "--max-length",
        4,
    )
    assert teaching.train(monkeypatch, built, tmp_path / "out", *arguments) == 0
    left_out = 24 - len(short)
    told = f"{left_out} of 24 examples have nothing to learn within --max-length"
    assert told in " ".join(capfd.readouterr().err.split())
    record = teaching.record_of(tmp_path / "out")
    assert record["data"]["n_used"] == len(short)
    assert f"{len(short)} of pairs.jsonl" in (tmp_path / "out" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("more", [(), ("--baseline", "ia3"), ("--beta2", 0.99)])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_nothing_is_written_where_all_examples_are_cut_to_nothing(
    more: tuple[object, ...],
    objective: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = built / {"sft": "pairs.jsonl", "dpo": "dpo.jsonl"}[objective]
    options = ("--objective", objective, "--data", data, "--max-length", 2, *more)
    capfd.readouterr()
    (tmp_path / "empty").mkdir()
    assert teaching.train(monkeypatch, built, tmp_path / "empty", *options) == 2
    assert not list((tmp_path / "empty").iterdir())
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 2
    err = capfd.readouterr().err.splitlines()[-1]
    for part in ("no example to train on", "within 2 tokens", "--max-length"):
        assert part in err
    assert not (tmp_path / "out").exists()


def test_a_diverged_training_is_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = (*teaching.SHORT, "--component", "mlp", "--learning-rate", 1e30)
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 2
    assert "loss is not finite" in capfd.readouterr().err
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_logs_for_tensorboard_stay(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    options = (*teaching.SHORT, "--baseline", "ia3", "--report-to", "tensorboard")
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == teaching.BASELINE_FILES | {
        "runs"
    }
    assert list((tmp_path / "out" / "runs").rglob("events.*"))


def test_edits_the_last_token_alone(
    monkeypatch: pytest.MonkeyPatch, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = (*teaching.SHORT, "--positions", "last", "--no-edit-bos", "--l1", 0.01)
    assert teaching.train(monkeypatch, built, out, *options) == 0
    record = teaching.record_of(out)
    assert (record["options"]["positions"], record["options"]["edit_bos"]) == ("last", False)
    assert record["metrics"]["after"] != record["metrics"]["before"]
    config = teaching.strict((out / "adapter_config.json").read_text("utf-8"))
    assert (config["positions"], config["edit_bos"]) == ("last", False)
    assert "| edited tokens | last" in (out / "README.md").read_text("utf-8")
