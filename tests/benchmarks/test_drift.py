"""The benchmark of drift weights, on the tiny world."""

from pathlib import Path

import lessons
import teaching
import torch
from cleansteer.adapters.allowlist import Allowed
from cleansteer.adapters.examples import gather
from cleansteer.adapters.finetuning import Recipe
from cleansteer.benchmarks.drift import row, train
from cleansteer.core.settings import read_setting
from cleansteer.core.training import TrainingOptions


def test_a_larger_weight_keeps_more(tmp_path: Path) -> None:
    setting = read_setting(teaching.build(tmp_path / "world") / "tiny.toml")
    reference = gather(lessons.texts(8, seed=5))
    recipe = Recipe("bias", {}, Allowed(lessons.ACTIVE), reference=reference)
    texts = gather(lessons.texts(16)), gather(lessons.texts(6, seed=9))
    rows, drifts = [], []
    for weight in (0.0, 1.0):
        records = []
        for seed in (0, 1):
            options = TrainingOptions(
                max_steps=8, learning_rate=0.1, drift=weight, evaluations=2, seed=seed
            )
            with torch.enable_grad():
                records.append(train(setting, recipe, texts, options))
        rows.append(row(weight, records))
        found = [
            record.effects.drift.after
            for record in records
            if record.effects and record.effects.drift
        ]
        assert f"{sum(found) / 2:.3f} [{min(found):.3f}, {max(found):.3f}]" in rows[-1]
        drifts.append(sum(found))
    assert drifts[1] < 0.5 * drifts[0]
    assert rows[0].startswith("| 0 | ")
