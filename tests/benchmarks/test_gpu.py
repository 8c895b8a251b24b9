"""The check of a GPU, on the CPU with tiny shapes: it says right of what is right, and WRONG of what is
not.
"""

import sys
from typing import Any

import peft
import pytest
import torch
from cleansteer.benchmarks import gpu
from cleansteer.benchmarks.gpu import CHECKS, main
from cleansteer.steering_eval.derivative import Differentiator
from cleansteer.steering_eval.resume import ResumedForward

Capture = pytest.CaptureFixture[str]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    return main()


def rows(capsys: Capture) -> list[list[str]]:
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[1:]]


def only(monkeypatch: pytest.MonkeyPatch, *checks: str) -> None:
    """One shape in one format, to be quick."""
    monkeypatch.setattr(gpu, "SMALL", {"llama-tiny": gpu.SMALL["llama-tiny"]})
    monkeypatch.setattr(gpu, "DTYPES", {"float32": torch.float32})
    monkeypatch.setattr(gpu, "CHECKS", {name: CHECKS[name] for name in checks})


def test_all_is_right_here(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "--device", "cpu", "--small") == 0
    found = rows(capsys)
    assert [row[:3] for row in found] == [
        [check, dtype, shape] for shape in gpu.SMALL for dtype in gpu.DTYPES for check in CHECKS
    ]
    assert {row[6] for row in found} == {"right"}


@pytest.mark.parametrize("check", ["self-check", "labels", "linear response"])
def test_a_fast_pass_that_is_off_is_noticed(
    check: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    exact = ResumedForward.resume

    def off(*given: Any) -> Any:
        output, tapped = exact(*given)
        return 1.05 * output, tapped

    monkeypatch.setattr(ResumedForward, "resume", off)
    only(monkeypatch, check)
    assert run(monkeypatch, "--device", "cpu", "--small") == 1
    assert [row[6] for row in rows(capsys)] == ["WRONG"]


def test_an_error_is_told_and_counts(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel\nof that kind")

    monkeypatch.setattr(Differentiator, "_push", fail)
    only(monkeypatch, "linear response", "self-check")
    assert run(monkeypatch, "--device", "cpu", "--small") == 1
    said = capsys.readouterr().out
    assert "linear response: RuntimeError: no kernel of that kind\n" in said
    assert [line.rsplit("|", 2)[1].strip() for line in said.splitlines() if "tiny" in line] == [
        "WRONG",
        "right",
    ]


@pytest.mark.parametrize("factor", [1.02, torch.nan])
def test_derivatives_that_are_off_are_noticed(
    factor: float, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    exact = Differentiator._push

    def off(*given: Any) -> Any:
        return tuple(factor * each for each in exact(*given))

    monkeypatch.setattr(Differentiator, "_push", off)
    monkeypatch.setattr(Differentiator, "_agree", lambda *_: True)
    only(monkeypatch, "linear response")
    assert run(monkeypatch, "--device", "cpu", "--small") == 1
    assert [row[6] for row in rows(capsys)] == ["WRONG"]


def test_a_step_that_moves_the_model_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    exact = peft.get_peft_model

    def unfrozen(*given: Any) -> Any:
        model = exact(*given)
        next(iter(model.parameters())).requires_grad_(True)
        return model

    monkeypatch.setattr(peft, "get_peft_model", unfrozen)
    only(monkeypatch, "adapter step")
    assert run(monkeypatch, "--device", "cpu", "--small") == 1
    assert [row[6] for row in rows(capsys)] == ["WRONG"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--device", "cpu"), ("--device cpu", "--small")),
        (("--device", "cuda:99"), ("cuda:99", "expected one of", "change")),
    ],
    ids=["a CPU at real shapes", "no such GPU"],
)
def test_what_cannot_be_checked_is_one_line(
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert all(part in said.err for part in parts)
