"""Trainings from Python: the same as the command's, from files or from rows in memory."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import lessons
import numpy as np
import pytest
import teaching
import torch
from cleansteer.adapters import choosing, finetuning, train
from cleansteer.adapters.components import names
from cleansteer.adapters.examples import COLUMNS
from cleansteer.adapters.exports import names as format_names
from cleansteer.adapters.trainers import baseline_config
from cleansteer.core import saes
from cleansteer.core.choices import BASELINES, COMPONENTS, EXPORT_FORMATS, Objective
from cleansteer.core.errors import InputError
from cleansteer.core.records import Allowlist, TrainingRecord
from cleansteer.core.settings import Setting, read_setting

SHORT: dict[str, Any] = {"max_steps": 6, "evaluations": 3, "batch_size": 4}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = teaching.build(tmp_path_factory.mktemp("world"))
    lessons.allowlist(read_setting(folder / "tiny.toml")).save(folder / "clean.json")
    return folder


@pytest.fixture
def setting(built: Path) -> Setting:
    return read_setting(built / "tiny.toml")


def trained(setting: Setting, out: Path, *data: Any, **given: Any) -> TrainingRecord:
    with torch.enable_grad():
        return train(setting, *data, out=out, progress=False, **(SHORT | given))


def test_command_and_function_give_the_same(
    built: Path, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--allowlist", built / "clean.json", "--select", 5, "--component", "lowrank")
    more = ("--option", "rank=3", "--l1", 0.01, "--drift", 0.1, "--reference")
    command = (*teaching.SHORT, *given, *more, built / "reference.jsonl")
    assert teaching.train(monkeypatch, built, tmp_path / "command", *command) == 0
    record = trained(
        setting,
        tmp_path / "function",
        built / "sft.jsonl",
        allowlist=built / "clean.json",
        select=5,
        component="lowrank",
        component_options={"rank": 3},
        l1=0.01,
        drift=0.1,
        reference=built / "reference.jsonl",
    )
    teaching.assert_same(tmp_path / "command", tmp_path / "function")
    assert TrainingRecord.read(tmp_path / "function" / "training.json") == record


def test_rows_in_memory_are_as_their_file(built: Path, setting: Setting, tmp_path: Path) -> None:
    rows, held = lessons.texts(24), lessons.texts(6, seed=9)
    allowlist = Allowlist.load(built / "clean.json")
    from_file = trained(
        setting,
        tmp_path / "file",
        str(built / "sft.jsonl"),
        eval_data=built / "held.jsonl",
        allowlist=str(built / "clean.json"),
    )
    in_memory = trained(
        setting, tmp_path / "memory", iter(rows), eval_data=held, allowlist=allowlist
    )
    assert in_memory.data.name == "rows in memory"
    assert in_memory.model_copy(update={"data": from_file.data}) == from_file
    assert in_memory.data.fingerprint == from_file.data.fingerprint
    one, other = (
        (tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("file", "memory")
    )
    assert one == other


@pytest.mark.parametrize("features", [[5, 3], np.array([3, 5]), "5,3", {3, 5}], ids=str)
def test_features_are_given_in_any_form(features: Any, setting: Setting, tmp_path: Path) -> None:
    record = trained(setting, tmp_path / "out", lessons.texts(12), features=features, beta2=0.99)
    assert record.features == [3, 5]
    assert record.trust is None


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({"baseline": "ia3"}, 0.01),
        ({"component": "sparse", "features": [3, 5]}, 0.003),
        ({"component": "sparse", "features": [3, 5], "learning_rate": 0.02}, 0.02),
        ({"component": "scale", "features": [3, 5]}, 0.03),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_the_rate_where_none_is_given(
    given: dict[str, Any], rate: float, setting: Setting, tmp_path: Path
) -> None:
    record = trained(setting, tmp_path / "out", lessons.texts(12), **given)
    assert record.options.learning_rate == rate


@pytest.mark.parametrize("baseline", [None, "lora"])
def test_a_reference_is_measured_without_a_penalty(
    baseline: str | None, setting: Setting, tmp_path: Path
) -> None:
    """KL of any adapter, drift of one that edits latents."""
    rows = lessons.texts(6, seed=3)
    given = {"reference": rows, "baseline": baseline, "learning_rate": 0.05}
    record = trained(setting, tmp_path / "out", lessons.texts(12), **given)
    assert record.effects is not None
    assert record.effects.kl is not None
    assert record.effects.kl.before == pytest.approx(0, abs=1e-6)
    assert record.effects.kl.after > 1e-5
    assert (record.effects.drift is None) is (baseline is not None)
    assert (record.effects.edit is None) is (baseline is not None)
    assert record.reference
    assert "KL(without ‖ with)" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_rate_that_is_far_too_low_is_told(setting: Setting, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="--learning-rate: 2e-05 moves a parameter"):
        trained(setting, tmp_path / "out", lessons.texts(12), learning_rate=2e-5, features=[3])


@pytest.mark.parametrize("progress", [True, False])
def test_silence_is_one_argument(
    progress: bool, setting: Setting, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    with torch.enable_grad():
        train(
            setting,
            lessons.texts(12),
            out=tmp_path / "out",
            component="bias",
            progress=progress,
            max_steps=1,
        )
    out, err = capfd.readouterr()
    assert out == ""
    assert ("training" in err) is progress


WRONG_TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "setting": ({"setting": "mini-gpt2-relu"}, "setting"),
    "data": ({"data": 3}, "data is 3"),
    "data of words": ({"data": ["w1 w2"]}, r"data\[0\] is 'w1 w2'; expected a dictionary"),
    "data of one row": ({"data": {"text": "w1"}}, "data is"),
    "eval_data": ({"eval_data": 3}, "eval_data is 3"),
    "reference": ({"drift": 1.0, "reference": 3}, "reference is 3"),
    "out": ({"out": 3}, "out is 3"),
    "allowlist": ({"allowlist": [1, 2]}, r"allowlist is \[1, 2\], of type list"),
    "features": ({"features": 3}, "features is 3; expected a list of indices"),
    "component": ({"component": 3}, "component is 3"),
    "component_options": ({"component_options": [3]}, "component_options"),
    "select": ({"select": True}, "select is True, of type bool"),
    "by": ({"by": 3}, "by is 3"),
    "eval_share": ({"eval_share": "x"}, "eval_share is 'x'"),
    "beta2": ({"beta2": None}, "beta2 is None"),
    "epochs": ({"epochs": "3"}, "epochs is '3'"),
    "batch_size": ({"batch_size": 2.5}, "batch_size is 2.5"),
    "unknown": ({"lerning_rate": 1.0}, "unexpected argument 'lerning_rate'.*learning_rate"),
}
WRONG_VALUES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no rows": ({"data": []}, ("data holds no example",)),
    "other columns": ({"data": [{"words": "w1"}]}, ("data has 'words'", "text")),
    "no text": ({"data": [{"text": "w1"}, {"text": 3}]}, ("data[1]: 'text' is 3",)),
    "eval_data in data": (
        {"eval_data": lessons.texts(3)},
        ("3 of 3 examples of eval_data are in data too",),
    ),
    "eval_data of other columns": (
        {"eval_data": lessons.completions(3)},
        ("eval_data has other columns than data",),
    ),
    "component": ({"component": "magic"}, ("'magic'", "sparse")),
    "objective": ({"objective": "ppo"}, ("--objective ppo", "sft")),
    "baseline": ({"baseline": "prompt"}, ("'prompt'", "lora or ia3")),
    "baseline and features": ({"baseline": "lora", "features": np.array([1])}, ("--features",)),
    "beta2": ({"beta2": "x"}, ("--beta2", "'x'", "number")),
    "features": ({"features": [1, 1]}, ("feature 1 is listed twice",)),
    "select": ({"select": 97}, ("--select 97",)),
    "select of text": ({"select": "3"}, ("--select '3'", "all or auto")),
    "learning rate": ({"learning_rate": 0.0}, ("--learning-rate 0", "greater than 0")),
    "device": ({"device": "tpu"}, ("'tpu'",)),
    "drift": ({"drift": 1.0}, ("--drift 1", "expected --reference as well")),
}


@contextmanager
def refused(patch: pytest.MonkeyPatch, out: Path) -> Iterator[None]:
    """No model is loaded and nothing written."""

    def unexpected(*given: Any, **named: Any) -> Any:
        raise AssertionError("a model is loaded")

    patch.setattr(finetuning, "load_network", unexpected)
    yield
    assert not out.exists()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_types_are_refused_at_the_door(
    case: str, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, text = WRONG_TYPES[case]
    given = {"setting": setting, "data": lessons.texts(12), "out": tmp_path / "out"} | changes
    with refused(monkeypatch, tmp_path / "out"), pytest.raises(TypeError, match=text):
        train(given.pop("setting"), given.pop("data"), **given)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", WRONG_VALUES)
def test_wrong_values_are_told_in_one_line(
    case: str, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, parts = WRONG_VALUES[case]
    given = {"data": lessons.texts(12), "out": tmp_path / "out"} | changes
    with refused(monkeypatch, tmp_path / "out"), pytest.raises(InputError) as caught:
        train(setting, given.pop("data"), **given)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


# What a training does not do twice, or at all


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The SAEs that are read, in order."""
    seen: list[Any] = []
    load: Callable[..., Any] = saes._load

    def counting(which: Any, *others: Any) -> Any:
        seen.append(which)
        return load(which, *others)

    monkeypatch.setattr(saes, "_load", counting)
    return seen


def test_the_sae_is_opened_once(setting: Setting, tmp_path: Path, loads: list[Any]) -> None:
    """Though it is needed for the target, the pass over the data, the drift and the adapter."""
    rows = lessons.texts(5, seed=5)
    trained(setting, tmp_path / "out", lessons.texts(12), select=5, drift=0.1, reference=rows)
    assert len(loads) == 1
    trained(setting, tmp_path / "again", lessons.texts(12), component="bias")
    assert len(loads) == 2, "and it is not kept"


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        ({"component": "bias"}, 0),
        ({"component": "bias", "select": 3}, 1),
        ({"component": "scale"}, 1),
        ({"component": "scale", "beta2": 0.99}, 0),
    ],
    ids=str,
)
def test_no_pass_over_the_data_that_nothing_needs(
    given: dict[str, Any],
    passes: int,
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[int] = []
    survey = choosing.survey
    monkeypatch.setattr(choosing, "survey", lambda *a: done.append(1) or survey(*a))
    record = trained(setting, tmp_path / "out", lessons.texts(12), **given)
    assert len(done) == passes
    assert (record.never_fire is None) is (passes == 0)
    if given["component"] == "bias":
        assert record.beta2 == 0.99


# Names


def test_names_that_are_shared_are_those_of_the_registries() -> None:
    assert sorted(COMPONENTS) == sorted(names())
    assert set(get_args(Objective)) == set(COLUMNS)
    assert sorted(EXPORT_FORMATS) == sorted(format_names())
    for name in BASELINES:
        assert baseline_config(name, 2).peft_type == name.upper()


def test_an_adapter_whose_training_was_interrupted_goes_on(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = lessons.texts(24)
    whole = trained(setting, tmp_path / "whole", rows)

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(setting, tmp_path / "parts", rows)
    assert not TrainingRecord.read(tmp_path / "parts" / "training.json").finished
    moved = shutil.move(tmp_path / "parts", tmp_path / "elsewhere")
    assert trained(setting, moved, rows, resume=True) == whole
    with pytest.raises(InputError, match="is finished"):
        trained(setting, moved, rows, resume=True)


def test_what_the_allowlist_is_ranked_by_is_recorded(setting: Setting, tmp_path: Path) -> None:
    free = lessons.allowlist(setting, ranked_by="linear response")
    record = trained(setting, tmp_path / "out", lessons.texts(12), allowlist=free)
    assert record.ranked_by == "linear response"
    assert TrainingRecord.read(tmp_path / "out" / "training.json").ranked_by == "linear response"
    assert (
        "ranked by linear response without labels" in (tmp_path / "out" / "README.md").read_text()
    )
