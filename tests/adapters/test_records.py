"""Records of trainings: their file, and what tells one training from another."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cleansteer.core.errors import InputError
from cleansteer.core.records import TrainingRecord
from cleansteer.core.training import TrainingOptions

INTERRUPTED: dict[str, Any] = {
    "format": "cleansteer-training/1",
    "setting": {"name": "small", "fingerprint": "0a"},
    "model": {"name": "gpt2", "dtype": "float32"},
    "options": TrainingOptions(max_steps=6).model_dump(),
    "data": {"name": "letters.jsonl", "n": 80, "fingerprint": "00aa"},
    "evaluated": {"n": 9, "fingerprint": "ff"},
    "versions": {"cleansteer": "9.8.7", "torch": "2.0"},
    "baseline": None,
    "component": {"component": "lowrank", "rank": 4},
    "hook": "blocks.5.hook_resid_pre",
    "sae": {"label": "release/id", "fingerprint": "aabb", "n_features": 24576},
    "allowed": [1, 5, 7],
    "select": None,
    "auto_beta2": True,
    "reference": None,
    "trust": None,
    "features": [1, 5, 7],
    "beta2": 0.995,
    "never_fire": 0,
}
"""As an interrupted training leaves it."""
FINISHED = INTERRUPTED | {
    "model": {"name": "gpt2", "dtype": "float32", "source": "openai-community/gpt2"},
    "data": {"name": "letters.jsonl", "n": 80, "fingerprint": "00aa", "n_used": 78},
    "evaluated": {"n": 9, "fingerprint": "ff", "n_used": 8},
    "chosen": "allowed",
    "n_parameters": 24,
    "n_steps": 6,
    "metrics": {"before": 3.25, "after": 2.5},
    "effects": {"edit": {"before": 0.0, "after": 1.5}, "objective": {"before": 3.25, "after": 2.5}},
    "history": [{"step": 0, "eval_loss": 3.25, "eval_edit": 0.0}, {"step": 6, "loss": None}],
}
BASELINE = {
    key: value
    for key, value in INTERRUPTED.items()
    if key not in {"hook", "sae", "allowed", "select", "auto_beta2", "reference", "features"}
    and key != "never_fire"
} | {"baseline": "ia3", "component": {"component": "ia3"}}


_ONE = ("hook", "sae", "allowed", "trust", "features")
SEVERAL = {key: value for key, value in FINISHED.items() if key not in _ONE} | {
    "targets": [
        {"hook": "blocks.5.hook_resid_pre", "sae": INTERRUPTED["sae"], "allowed": [1, 5, 7]}
        | {"trust": None, "ranked_by": None, "features": [5]},
        {"hook": "blocks.7.attn.hook_z", "sae": INTERRUPTED["sae"], "allowed": None}
        | {"trust": None, "ranked_by": None, "features": None},
    ]
}


@pytest.mark.parametrize("entries", [INTERRUPTED, FINISHED, BASELINE, SEVERAL])
def test_a_file_is_written_as_it_was_read(entries: dict[str, Any], tmp_path: Path) -> None:
    """Absent entries stay absent, and null ones null: a logged loss that was not finite is null."""
    path = tmp_path / "training.json"
    path.write_text(json.dumps(entries), "utf-8")
    record = TrainingRecord.read(path)
    record.write(path)
    assert json.loads(path.read_text("utf-8")) == entries
    assert TrainingRecord.read(path) == record
    assert record.finished is ("metrics" in entries)


CHANGES: dict[str, tuple[str, ...]] = {
    "setting": ("setting", "fingerprint"),
    "model": ("model", "name"),
    "data": ("data", "fingerprint"),
    "evaluated": ("evaluated", "n"),
    "component": ("component", "rank"),
    "hook": ("hook",),
    "sae": ("sae", "fingerprint"),
    "allowed": ("allowed",),
    "select": ("select",),
    "auto_beta2": ("auto_beta2",),
    "reference": ("reference",),
}
OTHERS: dict[str, Any] = {"n": 3, "rank": 5, "allowed": [1], "select": 2, "auto_beta2": False}


@pytest.mark.parametrize("name", CHANGES)
def test_another_training_differs_in_what_was_asked_for(name: str) -> None:
    entries = copy.deepcopy(INTERRUPTED)
    *outer, last = CHANGES[name]
    inner = entries
    for key in outer:
        inner = inner[key]
    inner[last] = OTHERS.get(last, "other")
    record, other = (TrainingRecord.model_validate(e) for e in (INTERRUPTED, entries))
    assert record.differences(other) == other.differences(record) == [name]


def test_places_are_told_alike_of_one_and_of_several() -> None:
    one, several, none = (TrainingRecord.model_validate(e) for e in (FINISHED, SEVERAL, BASELINE))
    (place,) = one.places
    assert (place.hook, place.features) == ("blocks.5.hook_resid_pre", [1, 5, 7])
    assert one.n_features == 3
    assert [each.hook for each in several.places] == [place.hook, "blocks.7.attn.hook_z"]
    assert several.n_features == 1 + 24576
    assert (none.places, none.n_features) == ([], 0)
    assert one.differences(several) == ["targets", "hook", "sae", "allowed"]


@pytest.mark.parametrize(
    ("change", "differs"),
    [({"features": [1]}, False), ({"allowed": [1]}, True), ({"hook": "blocks.6.hook_z"}, True)],
)
def test_what_is_asked_of_several_places_is_compared(change: Any, differs: bool) -> None:
    first, second = SEVERAL["targets"]
    record, other = (
        TrainingRecord.model_validate(SEVERAL | {"targets": each})
        for each in ([first, second], [first | change, second])
    )
    assert record.differences(other) == ["targets"] * differs


def test_options_are_compared() -> None:
    changed = INTERRUPTED | {"options": INTERRUPTED["options"] | {"seed": 3}}
    record, other = (TrainingRecord.model_validate(e) for e in (INTERRUPTED, changed))
    assert record.differences(other) == ["options"]


def test_what_is_known_later_is_no_difference() -> None:
    later = FINISHED | {"versions": {"cleansteer": "10"}, "beta2": 0.99, "features": [5]}
    record, other = (TrainingRecord.model_validate(e) for e in (INTERRUPTED, later))
    assert record.differences(other) == []


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"format": "cleansteer-training/9"}, ("training/9", "expected 'cleansteer-training/1'")),
        ({"component": 3}, ("'component'", "anew")),
        ({"surprise": 1}, ("'surprise'", "anew")),
    ],
)
def test_a_file_that_is_no_record_is_told(
    changes: dict[str, Any], parts: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "training.json"
    path.write_text(json.dumps(INTERRUPTED | changes), "utf-8")
    with pytest.raises(InputError) as caught:
        TrainingRecord.read(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)
