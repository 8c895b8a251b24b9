"""Trainings that choose their features, and those that keep to a budget."""

import math
from pathlib import Path

import lessons
import pytest
import teaching


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teaching.build(tmp_path_factory.mktemp("world"))


def test_by_fisher_features_are_chosen_by_what_they_move_elsewhere(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {}
    for by in ("gradient", "fisher"):
        for component in ("scale", "bias"):
            out = tmp_path / f"{by}-{component}"
            more = ("--by", by, "--select", 6, "--reference", built / "reference.jsonl")
            options = (*teaching.SHORT, *more, "--component", component)
            assert teaching.train(monkeypatch, built, out, *options) == 0
            record = teaching.record_of(out)
            assert (record["select"], record["by"], len(record["features"])) == (6, by, 6)
            assert ("Fisher" in record["chosen"]) == (by == "fisher")
            assert "of 96 allowed" in record["chosen"]
            chosen[by, component] = record["features"]
    assert chosen["fisher", "scale"] != chosen["gradient", "scale"]


def test_of_pairs_fisher_chooses_by_scalings(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*teaching.SHORT, "--objective", "dpo", "--data", built / "dpo.jsonl")
    more = ("--component", "bias", "--by", "fisher", "--select", 4)
    reference = ("--reference", built / "reference.jsonl")
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options, *more, *reference) == 0
    assert len(teaching.record_of(tmp_path / "out")["features"]) == 4


@pytest.mark.parametrize("method", ["bias", "lora"])
def test_a_budget_is_kept_told_and_what_the_best_is_chosen_by(
    method: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lessons.write(built / "much.jsonl", lessons.texts(60, seed=5, among=599))
    kind = ("--baseline", "lora") if method == "lora" else ("--component", method)
    more = ("--kl-budget", 0.005, "--reference", built / "much.jsonl", "--max-steps", 12)
    options = ("--evaluations", 4, "--batch-size", 4, *kind, *more)
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    record = teaching.record_of(tmp_path / "out")
    kept = record["budget"]
    assert kept["kl_budget"] == 0.005
    assert kept["gamma"] < 1  # it learnt more than the budget allows
    assert kept["kl"] == pytest.approx(0.005, rel=0.011)
    assert record["effects"]["kl"]["after"] == kept["held_out"]
    assert f"KL budget 0.005: {kept['held_out']:.4g}" in " ".join(capfd.readouterr().err.split())
    assert "| KL budget | 0.005 nats a token" in (tmp_path / "out" / "README.md").read_text("utf-8")
    scored = [entry for entry in record["history"] if "eval_loss" in entry]
    before = scored[0]["eval_loss"]
    for entry in scored[1:-1]:
        share = min(1.0, math.sqrt(0.005 / entry["eval_kl"]))
        expected = before - (before - entry["eval_loss"]) * share
        assert entry["eval_objective"] == pytest.approx(expected, rel=1e-6)
    assert scored[-1]["eval_kl"] == pytest.approx(0.005, rel=0.02)
    assert record["metrics"]["after"] == scored[-1]["eval_loss"]
