"""Sweeps through the command line: the best of several trainings, whatever interrupts them."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cleansteer as cs
import lessons
import pandas as pd
import pytest
import teaching
import torch
import world
from cleansteer.adapters.examples import gather
from cleansteer.adapters.sweeps import trials
from cleansteer.adapters.training import NotFiniteError
from peft import PeftModel
from transformers import AutoModelForCausalLM

ROUNDING = 1e-5
"""Relative: float32 losses of padded batches against those of one text at a time."""
SHORT = ("--max-steps", 4, "--evaluations", 1, "--batch-size", 4)
KEPT = {"best", "sweep.json", "sweep.md", "sweep.parquet", "sweep.svg"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = teaching.build(tmp_path_factory.mktemp("world"))
    lessons.write(folder / "held.jsonl", lessons.texts(12, seed=9))
    return folder


def command(built: Path, out: Path, *more: object) -> tuple[object, ...]:
    data = ("--data", built / "sft.jsonl", "--eval-data", built / "held.jsonl")
    return ("sweep", built / "tiny.toml", *data, "--out", out, *SHORT, *more)


def sweep(patch: pytest.MonkeyPatch, built: Path, out: Path, *more: object) -> int:
    return world.run(patch, *command(built, out, *more))


def record_of(out: Path) -> cs.SweepRecord:
    return cs.SweepRecord.read(out / "sweep.json")


def without_times(out: Path) -> Any:
    """All that a sweep writes about trials, but how long they took."""
    record = json.loads((out / "sweep.json").read_text("utf-8"))
    for trial in record["trials"]:
        del trial["seconds"]
    table = pd.read_parquet(out / "sweep.parquet").drop(columns="seconds")
    files = ("sweep.md", "sweep.svg", *(f"best/{name}" for name in teaching.FILES))
    return record, table.to_json(), {name: (out / name).read_bytes() for name in files}


LISTS = ("--learning-rate", "1e-9,0.3", "--component", "bias", "--select", "all,5")
DRAWN = ("--learning-rate", "0.001:0.5", "--component", "bias,scale", "--trials", 4)
"""From a range, so that what is tried depends on what was."""


@pytest.fixture(scope="module")
def swept(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of four trials, half of which can learn nothing."""
    out = tmp_path_factory.mktemp("swept") / "out"
    with pytest.MonkeyPatch.context() as patch:
        assert sweep(patch, built, out, *LISTS) == 0
    return out


def test_what_is_planted_as_best_is_found(swept: Path) -> None:
    record = record_of(swept)
    assert len(record.trials) == 4
    assert len({trial.point for trial in record.trials}) == 4
    best = record.best
    assert best is not None
    assert best.point.learning_rate == 0.3
    for trial in record.trials:
        assert trial.gain is not None
        if trial.point.learning_rate == 1e-9:
            assert abs(trial.gain) < 1e-4 < (best.gain or 0.0)
    losses = [trial.chosen_by.after for trial in record.trials if trial.chosen_by is not None]
    assert best.chosen_by is not None
    assert best.chosen_by.after == min(losses)
    assert {path.name for path in swept.iterdir()} == KEPT
    assert {path.name for path in (swept / "best").iterdir()} == teaching.FILES


def test_the_best_is_what_training_so_gives(built: Path, swept: Path, tmp_path: Path) -> None:
    """The same adapter, to the bit, chosen by one half of the held-out examples; the other half's loss is
    that of the saved adapter there.
    """
    record = record_of(swept)
    best = record.best
    assert best is not None
    chosen, other = gather(lessons.texts(12, seed=9)).held_out(0.5, 0)
    assert (record.evaluated.n, record.fresh.n) == (6, 6)
    assert not chosen.shared_with(other)
    with torch.enable_grad():
        trained = cs.train(
            str(built / "tiny.toml"),
            built / "sft.jsonl",
            out=tmp_path / "out",
            eval_data=chosen.rows,
            learning_rate=best.point.learning_rate,
            component=best.point.component,
            beta2=best.point.beta2,
            select=best.point.select,
            max_steps=4,
            evaluations=1,
            batch_size=4,
            progress=False,
        )
    assert trained.metrics == best.chosen_by
    assert trained.beta2 == best.used_beta2
    for name in ("adapter_model.safetensors", "adapter_config.json", "tracking.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (swept / "best" / name).read_bytes()
    base = AutoModelForCausalLM.from_pretrained(built / "model").eval()
    before = lessons.mean_loss(base, [dict(row) for row in other.rows])
    model = PeftModel.from_pretrained(base, swept / "best").eval()
    after = lessons.mean_loss(model, [dict(row) for row in other.rows])
    assert best.fresh is not None
    assert (best.fresh.before, best.fresh.after) == pytest.approx((before, after), rel=ROUNDING)
    assert before != pytest.approx(trained.metrics.before if trained.metrics else 0, rel=ROUNDING)
    card = (swept / "best" / "README.md").read_text("utf-8")
    assert f"On 6 further examples that nothing was chosen by: {before:.4f} before" in card


def test_every_trial_has_a_row_and_the_page_tells_the_best(swept: Path) -> None:
    record, table = record_of(swept), pd.read_parquet(swept / "sweep.parquet")
    assert table["trial"].tolist() == list(range(4))
    assert (table["state"] == "complete").all()
    for row, trial in zip(table.to_dict("records"), record.trials, strict=True):
        assert row["learning_rate"] == trial.point.learning_rate
        assert (row["component"], row["select"]) == (
            trial.point.component,
            str(trial.point.select),
        )
        assert row["gain"] == row["loss_before"] - row["loss_after"] == trial.gain
        assert row["fresh_gain"] == row["fresh_before"] - row["fresh_after"]
        assert row["n_parameters"] == row["n_features"] == (5 if row["select"] == "5" else 96)
        assert row["seconds"] > 0
    assert table["loss_before"].nunique() == table["fresh_before"].nunique() == 1
    page = (swept / "sweep.md").read_text("utf-8")
    best = record.best
    assert best is not None
    assert f"The best is trial {best.number}" in page
    assert "by which nothing was chosen" in page
    assert f"| {best.number} | 0.3 | {best.point.component} |" in page
    assert (swept / "sweep.svg").read_text("utf-8").count("<svg") == 1
    told = (Path(cs.__file__).parent / "docs" / "files.md").read_text("utf-8")
    assert all(f"`{column}`" in told for column in table.columns)


KILLED = """
import os, signal
from cleansteer.adapters.trainers import _Bar
from cleansteer.cli.app import main

begun, step_end = [], _Bar.on_step_end

def stepping(bar, args, state, control, **others):
    step_end(bar, args, state, control, **others)
    begun.append(1)
    if len(begun) == 11:
        os.kill(os.getpid(), signal.SIGKILL)

_Bar.on_step_end = stepping
main()
"""
"""In the midst of the third trial of four steps each."""


@pytest.fixture(scope="module")
def whole(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        assert sweep(patch, built, out, *DRAWN) == 0
    return out


def goes_on_to_the_same(
    patch: pytest.MonkeyPatch, built: Path, whole: Path, parts: Path, n_done: int
) -> None:
    assert len(record_of(parts).trials) == n_done
    assert sweep(patch, built, parts, *DRAWN, "--resume") == 0
    assert without_times(parts) == without_times(whole)
    assert {path.name for path in parts.iterdir()} == KEPT


def test_killed_it_goes_on_to_the_same(
    built: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, command(built, tmp_path / "out", *DRAWN))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    goes_on_to_the_same(monkeypatch, built, whole, tmp_path / "out", 2)


def test_stopped_between_a_trials_record_and_its_adapters_place_too(
    built: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every trial: of those that are the best so far the adapter is still to be moved then."""
    settle, stopped = trials.Sweep._settle, set[int]()

    def settling(job: trials.Sweep, record: cs.SweepRecord) -> None:
        n_done = len(record.trials)
        if n_done and n_done not in stopped:
            stopped.add(n_done)
            raise KeyboardInterrupt
        settle(job, record)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(trials.Sweep, "_settle", settling)
        assert sweep(patch, built, out, *DRAWN) == 130
        for _ in range(3):
            assert sweep(patch, built, out, *DRAWN, "--resume") == 130
    goes_on_to_the_same(monkeypatch, built, whole, out, 4)


def test_trials_can_be_added_and_all_kept(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    more = ("--learning-rate", "0.01:0.5", "--keep-all")
    out = tmp_path / "out"
    assert sweep(monkeypatch, built, out, *more, "--trials", 1) == 0
    assert sweep(monkeypatch, built, out, *more, "--trials", 3, "--resume") == 0
    record = record_of(out)
    assert (len(record.trials), record.n_trials) == (3, 3)
    assert sorted(path.name for path in (out / "trials").iterdir()) == ["000", "001", "002"]
    best = record.best
    assert best is not None
    kept = out / "trials" / f"{best.number:03d}"
    teaching.assert_same(kept, out / "best")
    capfd.readouterr()
    other = ("--learning-rate", "0.01:0.6", "--trials", 3, "--resume")
    assert sweep(monkeypatch, built, out, *other) == 2
    world.one_line(capfd, "holds a sweep with another space", "--resume")
    assert sweep(monkeypatch, built, out, *more) == 2
    world.one_line(capfd, "not empty", "--resume")


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exponentials of a learning rate that no float32 holds."""
    out = tmp_path / "out"
    rates = ("--learning-rate", "1e38,0.1", "--component", "mlp", "--json")
    capfd.readouterr()
    assert sweep(monkeypatch, built, out, *rates) == 0
    printed = teaching.strict(capfd.readouterr().out)
    record = record_of(out)
    assert printed == json.loads((out / "sweep.json").read_text("utf-8"))
    states = {trial.point.learning_rate: trial.state for trial in record.trials}
    assert states == {1e38: "failed", 0.1: "complete"}
    (failed,) = (trial for trial in record.trials if trial.state == "failed")
    assert "loss is not finite" in str(failed.reason)
    table = pd.read_parquet(out / "sweep.parquet").set_index("state")
    assert pd.isna(table.loc["failed", "loss_after"])
    assert "not finite" in table.loc["failed", "reason"]
    assert record.best is not None
    assert record.best.point.learning_rate == 0.1
    assert "2 trials, 1 of them failed" in (out / "sweep.md").read_text("utf-8")


def test_where_all_fail_that_is_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(job: Any, recipe: Any) -> Any:
        raise NotFiniteError("the held-out loss is not finite: nan; expected a number; lower it")

    monkeypatch.setattr(trials.FineTuning, "adapter", fail)
    out = tmp_path / "out"
    assert sweep(monkeypatch, built, out, "--learning-rate", "0.1,0.2") == 0
    assert "2 trials, 2 of them failed: there is no best one" in capfd.readouterr().err
    assert {path.name for path in out.iterdir()} == {"sweep.json", "sweep.md", "sweep.parquet"}


def test_within_a_budget_trials_are_compared_at_it(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons.write(built / "much.jsonl", lessons.texts(60, seed=5, among=599))
    budget = ("--kl-budget", 0.002, "--reference", built / "much.jsonl", "--component", "bias")
    out = tmp_path / "out"
    assert sweep(monkeypatch, built, out, *budget, "--learning-rate", "0.1,0.4") == 0
    record = record_of(out)
    trained = cs.TrainingRecord.read(out / "best" / "training.json")
    assert trained.budget is not None
    assert trained.metrics is not None
    assert record.best is not None
    assert record.best.kl == trained.budget.held_out
    assert record.best.chosen_by == trained.metrics
    for trial in record.trials:
        assert trial.kl is not None
        assert trial.kl < 0.006  # both would be far above it
    assert "| KL |" in (out / "sweep.md").read_text("utf-8")


REFUSED: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "range": (("--learning-rate", "0.1:0.01"), ("--learning-rate 0.1:0.01", "LOW:HIGH")),
    "component": (("--component", "scale,paint"), ("'paint'",)),
    "beta2": (("--beta2", "1.5"), ("--beta2 1.5", "between 0 and 1")),
    "select": (("--select", "0"), ("--select", "no number of features")),
    "select too many": (("--select", "5,97"), ("--select 97", "between 1 and the 96")),
    "sampler": (("--sampler", "luck"), ("'luck'", "tpe or grid")),
    "grid of a range": (("--sampler", "grid"), ("--sampler grid", "0.001:0.3", "a list")),
    "trials": (("--trials", 0), ("--trials 0", "1 or more")),
    "budget": (("--kl-budget", 1), ("--kl-budget 1", "--reference")),
    "option": (("--option", "rank=2"), ("'rank'", "takes none")),
    "one held out": (("--eval-data", "one.jsonl"), ("1 prompt", "half of them", "--eval-data")),
    "nothing to go on with": (("--resume",), ("holds no sweep to go on with",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_swept_is_refused_and_nothing_written(
    case: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lessons.write(tmp_path / "one.jsonl", lessons.texts(1, seed=3))
    monkeypatch.chdir(tmp_path)
    arguments, expected = REFUSED[case]
    capfd.readouterr()
    assert sweep(monkeypatch, built, tmp_path / "out", *arguments) == 2
    world.one_line(capfd, *expected)
    assert not (tmp_path / "out").exists()


def test_what_the_model_refuses_leaves_nothing(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Seen when the first trial begins."""
    lessons.save_sae(tmp_path / "narrow", width=16)
    given = ("--target", f"{lessons.HOOK}={tmp_path / 'narrow'}")
    capfd.readouterr()
    assert sweep(monkeypatch, built, tmp_path / "out", *given) == 2
    assert "16 dimensions, the model has 32" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_extra_is_named(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from cleansteer.core import checks

    find = checks.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "optuna" else find(name))
    capfd.readouterr()
    assert sweep(monkeypatch, built, tmp_path / "out") == 2
    world.one_line(capfd, "package optuna", "pip install 'cleansteer[sweep]'")


def test_pairs_of_answers_are_swept_too(built: Path, tmp_path: Path) -> None:
    """The model without an adapter is DPO's reference, so that its loss is ln 2 on both halves."""
    with torch.enable_grad():
        record = cs.sweep(
            str(built / "tiny.toml"),
            lessons.preferences(24),
            out=tmp_path / "out",
            eval_data=lessons.preferences(8, seed=9),
            objective="dpo",
            component="bias",
            learning_rate=0.1,
            max_steps=4,
            evaluations=1,
            progress=False,
        )
    (trial,) = record.trials
    assert trial.chosen_by is not None
    assert trial.fresh is not None
    assert trial.chosen_by.before == pytest.approx(math.log(2))
    assert trial.fresh.before == pytest.approx(math.log(2))
    assert trial.fresh.after != trial.chosen_by.after < trial.chosen_by.before
