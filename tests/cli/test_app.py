"""The program as a whole: what --help shows, and how it is interrupted."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import world

PROGRAM = [sys.executable, "-c", "from cleansteer.cli.app import main; main()"]


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("train", "default: 0.03; 0.01"),
        ("screen", "default: runs/SETTING"),
        ("screen", "default: 4 times"),
    ],
)
def test_defaults_that_depend_are_shown(
    command: str, default: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run(monkeypatch, command, "--help") == 0
    assert default in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("words", "command"), [((), "screen"), (("benchmark",), "families")])
def test_without_a_command_the_help_is_shown(
    words: tuple[str, ...],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert world.run(monkeypatch, *words) == 0
    bare = capsys.readouterr()
    assert world.run(monkeypatch, *words, "--help") == 0
    assert bare.out == capsys.readouterr().out
    assert f"\n  {command} " in bare.out
    assert bare.err == ""


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    setting = world.build(tmp_path)
    run = tmp_path / "run"
    command = [*PROGRAM, "screen", str(setting), "--run", str(run)]
    started = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job, as these tests may be one, ignores it, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (run / "features.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    assert out == ""
    assert err.strip().endswith("the same command goes on (train, sweep: with --resume)")
    assert "Traceback" not in err
