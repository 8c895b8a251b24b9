"""Trainings that are interrupted: they go on to the same, or say why not."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lessons
import pytest
import teaching
import world
from cleansteer.adapters import choosing, finetuning, trainers

PATIENT = ("--batch-size", 8, "--max-steps", 9, "--evaluations", 9, "--patience", 2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teaching.build(tmp_path_factory.mktemp("world"))


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
        (*teaching.OVERFITS, *PATIENT, "--eval-data"),
        ("--component", "bias", "--kl-budget", 0.01, "--reference"),
    ],
    ids=["sparse", "penalties", "dpo", "patience", "budget"],
)
def test_stopped_again_and_again_it_goes_on_to_the_same(
    options: tuple[object, ...], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"--reference": "reference", "--data": "dpo", "--eval-data": "wide"}
    if options[-1] in files:
        options = (*options, built / f"{files[str(options[-1])]}.jsonl")
    options = (*teaching.SHORT, *options)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert teaching.train(monkeypatch, built, whole, *options) == 0
    n_steps = teaching.record_of(whole)["n_steps"]
    assert (n_steps < 9) if "--patience" in options else (n_steps == 6)
    stopped = Stopped(monkeypatch, (1, 3, n_steps))
    code, count = teaching.train(monkeypatch, built, parts, *options), 1
    while code == 130:
        assert "metrics" not in teaching.record_of(parts)
        code, count = teaching.train(monkeypatch, built, parts, *options, "--resume"), count + 1
    assert (code, count, stopped.left) == (0, 6, [])
    # Done twice are only the steps behind a checkpoint: 1; 3; n - 1 and n.
    assert stopped.steps_done <= n_steps + 4
    teaching.assert_same(whole, parts)


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
    options = (*teaching.SHORT, "--beta2", 0.99) if not baseline else (*teaching.SHORT, *baseline)
    out = tmp_path / "out"

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers._Sft, "_prepare_dataset", stop)
        assert teaching.train(patch, built, out, *options) == 130
        assert teaching.train(patch, built, out, *options, "--resume") == 130
    assert teaching.train(monkeypatch, built, out, *options, "--resume") == 0
    assert teaching.train(monkeypatch, built, tmp_path / "whole", *options) == 0
    teaching.assert_same(tmp_path / "whole", out)


def test_stopped_before_anything_is_written_it_starts_anew(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "survey", stop)
        assert teaching.train(patch, built, tmp_path / "out", *teaching.SHORT) == 130
    assert not (tmp_path / "out").exists()
    assert teaching.train(monkeypatch, built, tmp_path / "out", *teaching.SHORT) == 0


def test_killed_and_moved_it_goes_on_to_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best evaluation is one of before the kill, so that its checkpoint is moved with it."""
    options = (*teaching.OVERFITS, "--max-steps", 7, "--evaluations", 7)
    data = ("--data", built / "sft.jsonl", "--eval-data", built / "wide.jsonl")
    assert teaching.train(monkeypatch, built, tmp_path / "whole", *options, *data) == 0
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
    assert teaching.train(monkeypatch, built, out, *options, *data, "--resume") == 130, "at its end"
    out = shutil.move(out, tmp_path / "third")
    assert teaching.train(monkeypatch, built, out, *options, *data, "--resume") == 130, (
        "at the card"
    )
    assert teaching.train(monkeypatch, built, out, *options, *data, "--resume") == 0
    teaching.assert_same(tmp_path / "whole", out)


def test_a_half_written_checkpoint_is_passed_over(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        Stopped(patch, (5,))
        assert teaching.train(patch, built, out, *teaching.SHORT) == 130
    state = out / "checkpoints" / "checkpoint-4" / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:100])
    assert teaching.train(monkeypatch, built, tmp_path / "whole", *teaching.SHORT) == 0
    assert teaching.train(monkeypatch, built, out, *teaching.SHORT, "--resume") == 0
    teaching.assert_same(tmp_path / "whole", out)


def test_going_on_where_there_is_nothing_to_go_on_with_is_refused(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        Stopped(patch, (3,))
        assert teaching.train(patch, built, out, *teaching.SHORT) == 130
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
        assert teaching.train(monkeypatch, built, out, *teaching.SHORT, *more, "--resume") == 2
        world.one_line(capfd, str(out), "holds a training with another", part, "repeat")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert teaching.train(monkeypatch, built, out, *teaching.SHORT) == 2
    world.one_line(capfd, str(out), "not empty", "--resume")
    done = tmp_path / "done"
    assert teaching.train(monkeypatch, built, done, *teaching.SHORT) == 0
    capfd.readouterr()
    assert teaching.train(monkeypatch, built, done, *teaching.SHORT, "--resume") == 2
    world.one_line(capfd, str(done), "is finished", "another --out")
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "nowhere", tmp_path / "empty", built / "model"):
        assert teaching.train(monkeypatch, built, nothing, *teaching.SHORT, "--resume") == 2
        world.one_line(capfd, str(nothing), "holds no training", "--resume")
    assert not (tmp_path / "nowhere").exists()
    assert not list((tmp_path / "empty").iterdir())


def test_an_interrupted_baseline_goes_on_to_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*teaching.SHORT, "--baseline", "lora")
    assert teaching.train(monkeypatch, built, tmp_path / "whole", *options) == 0
    Stopped(monkeypatch, (3,))
    out = tmp_path / "out"
    code = teaching.train(monkeypatch, built, out, *options)
    while code == 130:
        code = teaching.train(monkeypatch, built, out, *options, "--resume")
    assert code == 0
    teaching.assert_same(tmp_path / "whole", out)
