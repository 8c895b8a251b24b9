"""Trainings through the command line: their world, data and records."""

import json
from pathlib import Path
from typing import Any

import lessons
import pytest
import world

SHORT = ("--max-steps", 6, "--evaluations", 3, "--batch-size", 4)
OVERFITS = ("--no-bos", "--component", "mlp", "--learning-rate", 0.5)
"""To the words of the training: on held-out texts of all words the loss falls, then rises."""
BASELINE_FILES = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "training.json",
}
FILES = BASELINE_FILES | {"tracking.parquet"}


def build(folder: Path) -> Path:
    """Fill a folder with a setting and data."""
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


def assert_same(one: Path, other: Path) -> None:
    files = {path.name for path in one.iterdir()}
    assert {path.name for path in other.iterdir()} == files
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
