"""The benchmark of budgets, on the tiny world."""

from pathlib import Path

import lessons
import pytest
import teaching
import torch
from cleansteer.benchmarks import budgets
from cleansteer.core.progress import Reporter
from cleansteer.core.settings import read_setting


def test_a_row_says_what_a_training_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = read_setting(teaching.build(tmp_path / "world") / "tiny.toml")

    def docstrings(packages: tuple[str, ...], split: str, seed: int) -> list[str]:
        rows = lessons.texts(240, len(split), 20, 30, 30 if len(packages) == 1 else 300)
        return [row["text"] for row in rows]

    monkeypatch.setattr(budgets, "docstrings", docstrings)
    monkeypatch.setattr(budgets, "_RULE", budgets.Rule(8, by="fisher"))
    with torch.enable_grad():
        table = budgets.compare(
            setting, "words", ["bias", "lora"], [0.001, 0.01], 12, 0, Reporter(quiet=True)
        )
    assert list(table["component"]) == ["bias", "bias", "lora", "lora"]
    assert (table["ratio"] == table["held_out"] / table["budget"]).all()
    assert (table["kl"] <= 1.011 * table["budget"]).all()
    assert (table["ratio"] < 1.4).all(), "nothing was fitted to it, but it is of the same words"
    assert (table["gain"] > 0).all()
    assert (table["unconstrained"] > 0).all()
    for _, own in table.groupby("component"):
        assert own["gain"].is_monotonic_increasing
        assert own["unconstrained"].is_monotonic_increasing
