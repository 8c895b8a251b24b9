"""Training through the command line: what it writes, goes on to after a kill, and refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lessons
import pytest
import tiny
import torch
import world
from cleansteer.adapters import finetuning, trainers
from cleansteer.adapters.options import TrainingOptions
from cleansteer.adapters.selection import fitting_beta2, survey
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROUNDING = 1e-5
"""Relative: float32 losses of padded batches against those of one text at a time."""
BFLOAT16 = 2e-3
"""Relative: of sums of log-probabilities, padded against one text at a time, 8 bits of precision."""
FEATURES = ",".join(map(str, lessons.ACTIVE))
SHORT = ("--max-steps", 6, "--evaluations", 3, "--batch-size", 4)
LEARNS = ("--component", "mlp", "--learning-rate", 0.05, "--max-steps", 20, "--evaluations", 4)
OVERFITS = ("--no-bos", "--component", "mlp", "--learning-rate", 0.1)
"""To the words of the training: on held-out texts of all words the loss falls, then rises."""
PATIENT = ("--batch-size", 8, "--max-steps", 9, "--evaluations", 9, "--patience", 2)
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "training.json"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    lessons.write(folder / "sft.jsonl", lessons.texts(24))
    lessons.write(folder / "dpo.jsonl", lessons.preferences(24))
    lessons.write(folder / "pairs.jsonl", lessons.completions(24))
    lessons.write(folder / "held.jsonl", lessons.texts(6, seed=9))
    lessons.write(folder / "wide.jsonl", lessons.texts(6, seed=9, among=599))
    lessons.write(folder / "held-dpo.jsonl", lessons.preferences(6, seed=9))
    lessons.write(folder / "reference.jsonl", lessons.texts(8, seed=5))
    return folder


def train(patch: pytest.MonkeyPatch, built: Path, out: Path, *more: object) -> int:
    data = () if "--data" in more else ("--data", built / "sft.jsonl")
    return world.run(patch, "train", built / "tiny.toml", "--out", out, *data, *more)


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def record_of(out: Path) -> dict[str, Any]:
    return strict((out / "training.json").read_text("utf-8"))


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
            arguments = (*LEARNS, *more, "--objective", objective, "--features", FEATURES)
            assert train(patch, built, folder / objective, *arguments) == 0
    return {"sft": folder / "sft", "dpo": folder / "dpo"}


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_losses_fall_and_are_those_of_the_saved_adapter(
    objective: str, built: Path, taught: dict[str, Path]
) -> None:
    out = taught[objective]
    assert {path.name for path in out.iterdir()} == FILES
    record = record_of(out)
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
    assert train(monkeypatch, built, tmp_path / "out", *SHORT, *held, bos) == 0
    rows = lessons.texts(6, seed=9)
    before, other = (
        lessons.mean_loss(base(built), rows, batch_size=4, bos=b) for b in (begins, not begins)
    )
    assert record_of(tmp_path / "out")["metrics"]["before"] == pytest.approx(before, rel=ROUNDING)
    assert abs(before - other) > 100 * ROUNDING * before
    assert ("BOS in front" in (tmp_path / "out" / "README.md").read_text("utf-8")) is begins


def test_in_bfloat16(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is computed in bfloat16; the adapter's own numbers stay float32."""
    text = (built / "tiny.toml").read_text("utf-8")
    assert text.count("[model]\n") == 1
    setting = built / "bfloat16.toml"
    setting.write_text(text.replace("[model]\n", '[model]\ndtype = "bfloat16"\n'), "utf-8")
    held = ("--eval-data", built / "held.jsonl", *LEARNS)
    arguments = ("train", setting, "--data", built / "sft.jsonl", "--out", tmp_path / "out", *held)
    assert world.run(monkeypatch, *arguments) == 0
    metrics = record_of(tmp_path / "out")["metrics"]
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
    options = ("--component", "mlp", "--option", "hidden=4", "--select", 5, *SHORT)
    assert train(monkeypatch, built, tmp_path / "out", *options) == 0
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
    options = (*OVERFITS, "--eval-data", built / "wide.jsonl", "--max-steps", 8, "--evaluations", 8)
    assert train(monkeypatch, built, tmp_path / "out", *options) == 0
    record = record_of(tmp_path / "out")
    losses = [entry["eval_loss"] for entry in record["history"] if "eval_loss" in entry][1:]
    assert min(losses) not in (losses[-1], losses[0]), losses
    assert record["metrics"]["after"] == min(losses)
    after = lessons.mean_loss(opened(built, tmp_path / "out"), rows, bos=False)
    assert after == pytest.approx(min(losses), rel=ROUNDING)


def test_patience_ends_it(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*OVERFITS, "--eval-data", built / "wide.jsonl", "--max-steps", 20)
    count = ("--evaluations", 20, "--patience", 2)
    assert train(monkeypatch, built, tmp_path / "out", *options, *count) == 0
    record = record_of(tmp_path / "out")
    losses = [entry["eval_loss"] for entry in record["history"] if "eval_loss" in entry][1:]
    assert record["n_steps"] == len(losses) < 20
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 2


# Going on


class Stopped:
    """Interrupts a training once at each of several points."""

    def __init__(self, patch: pytest.MonkeyPatch, steps: tuple[int, ...]) -> None:
        self.left: list[object] = [*steps, "save", "card"]
        self.steps_done = 0
        on_step_end, save, card = trainers._Bar.on_step_end, finetuning.save, finetuning.card

        def stepping(bar: Any, args: Any, state: Any, control: Any, **others: Any) -> None:
            on_step_end(bar, args, state, control, **others)
            self.steps_done += 1
            self._stop(state.global_step)

        patch.setattr(trainers._Bar, "on_step_end", stepping)
        patch.setattr(finetuning, "save", lambda *given: self._stop("save") or save(*given))
        patch.setattr(finetuning, "card", lambda *given: self._stop("card") or card(*given))

    def _stop(self, where: object) -> None:
        if where in self.left:
            self.left.remove(where)
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options",
    [
        ("--component", "sparse", "--option", "l1=0.2", "--select", 6),
        ("--component", "mlp", "--accumulation", 2, "--l1", 0.02, "--drift", 0.1, "--reference"),
        ("--component", "lerp", "--objective", "dpo", "--data"),
        (*OVERFITS, *PATIENT, "--eval-data"),
    ],
    ids=["sparse", "penalties", "dpo", "patience"],
)
def test_stopped_again_and_again_it_goes_on_to_the_same(
    options: tuple[object, ...], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"--reference": "reference", "--data": "dpo", "--eval-data": "wide"}
    if options[-1] in files:
        options = (*options, built / f"{files[str(options[-1])]}.jsonl")
    options = (*SHORT, *options)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(monkeypatch, built, whole, *options) == 0
    n_steps = record_of(whole)["n_steps"]
    assert (n_steps < 9) if "--patience" in options else (n_steps == 6)
    stopped = Stopped(monkeypatch, (1, 3, n_steps))
    code, count = train(monkeypatch, built, parts, *options), 1
    while code == 130:
        assert "metrics" not in record_of(parts)
        code, count = train(monkeypatch, built, parts, *options, "--resume"), count + 1
    assert (code, count, stopped.left) == (0, 6, [])
    # Done twice are only the steps behind a checkpoint: 1; 3; n - 1 and n.
    assert stopped.steps_done <= n_steps + 4
    assert_same(whole, parts)


def assert_same(one: Path, other: Path) -> None:
    assert {path.name for path in other.iterdir()} == FILES
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


KILLED = """
import os, signal, sys
from cleansteer.adapters import trainers
from cleansteer.cli.app import main

class Killing(trainers._Bar):
    def on_step_end(self, args, state, control, **others):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

trainers._Bar = Killing
main()
"""


@pytest.mark.parametrize("baseline", [(), ("--baseline", "ia3")])
def test_stopped_before_the_first_step_it_goes_on(
    baseline: tuple[str, ...], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While texts become tokens, which may take long."""
    options = (*SHORT, "--beta2", 0.99) if not baseline else (*SHORT, *baseline)
    out = tmp_path / "out"

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers._Sft, "_prepare_dataset", stop)
        assert train(patch, built, out, *options) == 130
        assert train(patch, built, out, *options, "--resume") == 130
    assert train(monkeypatch, built, out, *options, "--resume") == 0
    assert train(monkeypatch, built, tmp_path / "whole", *options) == 0
    assert_same(tmp_path / "whole", out)


def test_stopped_before_anything_is_written_it_starts_anew(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "survey", stop)
        assert train(patch, built, tmp_path / "out", *SHORT) == 130
    assert not (tmp_path / "out").exists()
    assert train(monkeypatch, built, tmp_path / "out", *SHORT) == 0


def test_killed_and_moved_it_goes_on_to_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best evaluation is one of before the kill, so that its checkpoint is moved with it."""
    options = (*OVERFITS, "--max-steps", 7, "--evaluations", 7)
    data = ("--data", built / "sft.jsonl", "--eval-data", built / "wide.jsonl")
    assert train(monkeypatch, built, tmp_path / "whole", *options, *data) == 0
    command = ("train", built / "tiny.toml", "--out", "first", *options, *data)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, command)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    out = shutil.move(tmp_path / "first", tmp_path / "second")
    assert sorted(path.name for path in (out / "checkpoints").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    Stopped(monkeypatch, ())
    assert train(monkeypatch, built, out, *options, *data, "--resume") == 130, "at its end"
    out = shutil.move(out, tmp_path / "third")
    assert train(monkeypatch, built, out, *options, *data, "--resume") == 130, "at the card"
    assert train(monkeypatch, built, out, *options, *data, "--resume") == 0
    assert_same(tmp_path / "whole", out)


def test_a_half_written_checkpoint_is_passed_over(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        Stopped(patch, (5,))
        assert train(patch, built, out, *SHORT) == 130
    state = out / "checkpoints" / "checkpoint-4" / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:100])
    assert train(monkeypatch, built, tmp_path / "whole", *SHORT) == 0
    assert train(monkeypatch, built, out, *SHORT, "--resume") == 0
    assert_same(tmp_path / "whole", out)


def test_going_on_where_there_is_nothing_to_go_on_with_is_refused(
    built: Path,
    taught: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        Stopped(patch, (3,))
        assert train(patch, built, out, *SHORT) == 130
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = lessons.write(tmp_path / "other.jsonl", lessons.texts(24, seed=3))
    for more, part in (
        (("--seed", 1), "options"),
        (("--learning-rate", 0.5), "options"),
        (("--component", "bias"), "component"),
        (("--features", "1,2"), "allowed"),
        (("--select", 3), "select"),
        (("--beta2", 0.99), "auto_beta2"),
        (("--data", other), "data"),
        (("--eval-data", other), "evaluated"),
        (("--baseline", "ia3"), "baseline"),
    ):
        capfd.readouterr()
        assert train(monkeypatch, built, out, *SHORT, *more, "--resume") == 2
        world.one_line(capfd, str(out), "holds a training with another", part, "repeat")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert train(monkeypatch, built, out, *SHORT) == 2
    world.one_line(capfd, str(out), "not empty", "--resume")
    finished = (*LEARNS, "--eval-data", built / "held.jsonl", "--features", FEATURES, "--resume")
    assert train(monkeypatch, built, taught["sft"], *finished) == 2
    world.one_line(capfd, str(taught["sft"]), "is finished", "another --out")
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "nowhere", tmp_path / "empty", built / "model"):
        assert train(monkeypatch, built, nothing, *SHORT, "--resume") == 2
        world.one_line(capfd, str(nothing), "holds no training", "--resume")
    assert not (tmp_path / "nowhere").exists()
    assert not list((tmp_path / "empty").iterdir())


# What is told


def test_json_goes_to_stdout_alone_and_words_to_stderr(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = (*SHORT, "--features", FEATURES)
    capfd.readouterr()
    assert train(monkeypatch, built, tmp_path / "one", *options, "--json") == 0
    out, err = capfd.readouterr()
    assert strict(out) == record_of(tmp_path / "one")
    assert "{" not in err
    assert train(monkeypatch, built, tmp_path / "other", *options) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "scale on 8 features, 8 parameters" in err
    assert "6 steps" in err
    assert_same(tmp_path / "one", tmp_path / "other")


def test_features_that_never_fire_are_counted(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world.overwrite_tensor(
        shutil.copytree(built, tmp_path / "world") / "primary",
        b_enc=torch.where(torch.arange(96) % 2 == 0, 5.0, -100.0),
    )
    folder = tmp_path / "world"
    assert train(monkeypatch, folder, tmp_path / "out", *SHORT, "--features", "0,1,2,3,4,5,7") == 0
    assert "4 of them never fire on the data and cannot learn" in " ".join(
        capfd.readouterr().err.split()
    )
    record = record_of(tmp_path / "out")
    assert record["never_fire"] == 4
    assert record["beta2"] == 0.99
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert (next(iter(tensors.values())) != 0).tolist() == [True, False, True, False, True, 0, 0]


def test_seed_decides(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = ("--eval-data", built / "held.jsonl", *SHORT)
    for name, seed in (("one", 1), ("two", 2)):
        assert train(monkeypatch, built, tmp_path / name, *held, "--seed", seed) == 0
    one, two = (record_of(tmp_path / name) for name in ("one", "two"))
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
    assert train(monkeypatch, built, tmp_path / "out", *SHORT, *data, *options) == 0
    with torch.enable_grad():
        found = survey(
            base(built),
            tiny.tokenizer(),
            lessons.config(built / "primary", "bias", None),
            TrainingOptions(objective=objective, batch_size=4),
            lessons.examples(objective, 24),
        )
    order = sorted(range(96), key=lambda feature: (-abs(found.gradient[feature]), feature))
    record = record_of(tmp_path / "out")
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
    assert train(monkeypatch, built, out, *SHORT, "--baseline", name, *more, *held) == 0
    assert f"{name}, " in capfd.readouterr().err
    assert {path.name for path in out.iterdir()} == FILES
    record = record_of(out)
    assert record["baseline"] == name
    # GPT-2's fused projection of attention: 2 (32 + 96) a layer; IA3 also scales the MLP's inputs.
    assert record["n_parameters"] == {"lora": 4 * 2 * (32 + 96), "ia3": 4 * (96 + 128)}[name]
    model = opened(built, out)
    after = lessons.mean_loss(model, lessons.texts(6, seed=9), batch_size=4)
    assert record["metrics"]["after"] == pytest.approx(after, rel=ROUNDING)
    assert record["metrics"]["after"] < record["metrics"]["before"]
    text = (out / "README.md").read_text("utf-8")
    assert f"A baseline, {name} of PEFT" in text
    assert "import cleansteer" not in text


def test_an_interrupted_baseline_goes_on_to_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*SHORT, "--baseline", "lora")
    assert train(monkeypatch, built, tmp_path / "whole", *options) == 0
    Stopped(monkeypatch, (3,))
    out = tmp_path / "out"
    code = train(monkeypatch, built, out, *options)
    while code == 130:
        code = train(monkeypatch, built, out, *options, "--resume")
    assert code == 0
    assert_same(tmp_path / "whole", out)


def test_prompts_and_completions(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only completions count, their end included."""
    held = lessons.write(tmp_path / "held.jsonl", lessons.completions(5, seed=9))
    data = ("--data", built / "pairs.jsonl", "--eval-data", held)
    assert train(monkeypatch, built, tmp_path / "out", *SHORT, *data) == 0
    record, model = record_of(tmp_path / "out"), opened(built, tmp_path / "out")
    total = 0.0
    for rows in (lessons.completions(5, seed=9)[:4], lessons.completions(5, seed=9)[4:]):
        found = torch.cat(
            [
                lessons.log_probabilities(
                    model, row["prompt"] + row["completion"], len(row["prompt"].split())
                )
                for row in rows
            ]
        )
        total -= float(found.mean()) * len(rows) / 5
    assert record["metrics"]["after"] == pytest.approx(total, rel=ROUNDING)


def test_all_options_together(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers computed twice change nothing, with penalties too."""
    more = ("--l1", 0.01, "--drift", 0.1, "--reference", built / "reference.jsonl")
    options = ("--component", "lowrank", "--option", "rank=3", "--select", 7, *SHORT, *more)
    assert train(monkeypatch, built, tmp_path / "one", *options, "--accumulation", 2) == 0
    again = (*options, "--accumulation", 2, "--gradient-checkpointing")
    assert train(monkeypatch, built, tmp_path / "two", *again) == 0
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor)
    assert record_of(tmp_path / "one")["options"]["gradient_checkpointing"] is False


def test_examples_that_are_cut_to_nothing_are_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    short = [row for row in lessons.completions(24) if len(row["prompt"].split()) < 3]
    others = [row | {"completion": row["completion"] + " w7"} for row in short[:3]]
    held = lessons.write(tmp_path / "held.jsonl", others)
    arguments = ("--data", built / "pairs.jsonl", "--eval-data", held, *SHORT, "--max-length", 4)
    assert train(monkeypatch, built, tmp_path / "out", *arguments) == 0
    left_out = 24 - len(short)
    told = f"{left_out} of 24 examples have nothing to learn within --max-length"
    assert told in " ".join(capfd.readouterr().err.split())
    record = record_of(tmp_path / "out")
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
    assert train(monkeypatch, built, tmp_path / "empty", *options) == 2
    assert not list((tmp_path / "empty").iterdir())
    assert train(monkeypatch, built, tmp_path / "out", *options) == 2
    err = capfd.readouterr().err.splitlines()[-1]
    for part in ("no example to train on", "within 2 tokens", "--max-length"):
        assert part in err
    assert not (tmp_path / "out").exists()


def test_a_diverged_training_is_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = (*SHORT, "--component", "mlp", "--learning-rate", 1e30)
    assert train(monkeypatch, built, tmp_path / "out", *options) == 2
    assert "loss is not finite" in capfd.readouterr().err
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_logs_for_tensorboard_stay(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    options = (*SHORT, "--baseline", "ia3", "--report-to", "tensorboard")
    assert train(monkeypatch, built, tmp_path / "out", *options) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"runs"}
    assert list((tmp_path / "out" / "runs").rglob("events.*"))
