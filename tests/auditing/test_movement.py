"""How features moved over checkpoints: each column is what an audit of that adapter alone says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cleansteer as cs
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters import SaeAdapterConfig, SFTConfig
from cleansteer.adapters.components import names
from cleansteer.adapters.layer import component_at
from datasets import Dataset
from peft import PeftModel, get_peft_model
from planted import ABOVE, HOOK, network, plant, target

Command = Callable[..., Any]
WAY = ({3: 0.1, 5: 0.5, 40: 0.0}, {3: -0.4, 5: 0.2, 40: 0.05}, {3: -0.9, 5: 0.2, 40: 0.0})
"""What features have learnt in one checkpoint after the other."""


@pytest.fixture(scope="module")
def way(built: Path) -> list[Path]:
    folders = [built / "way" / f"checkpoint-{step}" for step in (4, 12, 100)]
    for folder, values in zip(folders, WAY, strict=True):
        plant(built, folder, "scale", scale=values)
    return folders


def test_a_table_has_what_was_planted(way: list[Path], audit: Command) -> None:
    found = audit(*way)
    assert [each["step"] for each in found["adapters"]] == [4, 12, 100]
    assert [each["n_changed"] for each in found["adapters"]] == [2, 3, 2]
    assert (found["component"], found["n_features"]) == ("scale", 96)
    assert [each["feature"] for each in found["features"]] == [3, 5, 40]
    for each in found["features"]:
        expected = [values[each["feature"]] for values in WAY]
        assert each["parameters"] == {"scale": pytest.approx(expected)}
        assert each["size"] == pytest.approx([abs(value) for value in expected])
    assert "last" not in found


def test_a_directory_stands_for_its_checkpoints_in_the_order_of_their_steps(
    way: list[Path], tmp_path: Path, audit: Command
) -> None:
    whole = audit(*way)
    assert audit(way[0].parent) == whole
    assert audit(way[2], way[0], way[1]) == whole
    shutil.copytree(way[0].parent, tmp_path / "out" / "checkpoints")
    (tmp_path / "out" / "checkpoints" / "checkpoint-200").mkdir()  # not whole yet
    inside = audit(tmp_path / "out")
    assert inside["features"] == whole["features"]
    shutil.copytree(way[1], tmp_path / "best")
    more = audit(*way, tmp_path / "best")
    assert [each.get("step") for each in more["adapters"]] == [4, 12, 100, None]
    assert [each["size"][-1] for each in more["features"]] == [
        each["size"][1] for each in whole["features"]
    ]


@pytest.mark.parametrize("component", names())
@pytest.mark.parametrize("features", [None, [2, 7, 9]])
def test_each_column_is_an_audit_of_that_adapter(
    built: Path, tmp_path: Path, component: str, features: list[int] | None
) -> None:
    """Also where all features may be edited, and their number follows from what was saved."""
    folders = []
    for number in range(2):
        config = SaeAdapterConfig(
            targets=[target(built) | {"features": features}], component=component, seed=3
        )
        model = get_peft_model(network(built), config)
        torch.manual_seed(number)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        folders.append(tmp_path / str(number))
        model.save_pretrained(folders[-1])
    found = cs.audit_checkpoints(folders, top=96, progress=False)
    assert len(found.features) == (96 if features is None else 3)
    for at, folder in enumerate(folders):
        alone = cs.audit(folder, top=96, progress=False)
        assert found.adapters[at].n_changed == alone.n_changed
        known = {each.feature: each for each in alone.features}
        for each in found.features:
            other = known[each.feature]
            assert each.size[at] == pytest.approx(other.size, rel=1e-5)
            here = {name: values[at] for name, values in each.parameters.items()}
            assert here == pytest.approx(dict(other.parameters), rel=1e-5)
    sizes = [each.size[-1] for each in found.features]
    assert sizes == sorted(sizes, reverse=True)


def test_several_places_are_told_apart(built: Path, tmp_path: Path, audit: Command) -> None:
    above = target(built) | {
        "hook": ABOVE,
        "sae": {"path": str(built / "downstream")},
        "features": [2, 5],
    }
    for step, values in ((1, (0.5, 0.1)), (2, (0.7, -2.0))):
        config = SaeAdapterConfig(targets=[target(built), above], component="bias")
        model = get_peft_model(network(built), config)
        component_at(model, HOOK, "default").bias.data[5] = values[0]
        component_at(model, ABOVE, "default").bias.data[1] = values[1]
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
    found = audit(tmp_path)
    told = [(each["hook"], each["feature"], each["size"]) for each in found["features"]]
    assert told == [(ABOVE, 5, pytest.approx([0.1, 2.0])), (HOOK, 5, pytest.approx([0.5, 0.7]))]
    assert found["n_features"] == 98


def test_checkpoints_of_trl_are_read_as_they_are(built: Path, tmp_path: Path) -> None:
    from trl import SFTTrainer

    model = get_peft_model(network(built), lessons.config(built / "primary", "lowrank", rank=2))
    args = SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        learning_rate=0.05,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    data = Dataset.from_list(lessons.texts(8))
    trainer = SFTTrainer(model, args, train_dataset=data, processing_class=tiny.tokenizer())
    with torch.enable_grad():
        trainer.train()
    found = cs.audit_checkpoints(tmp_path / "out", progress=False)
    assert [each.step for each in found.adapters] == [2, 4]
    assert len(found.features) == len(lessons.ACTIVE)
    for at, step in enumerate((2, 4)):
        loaded = PeftModel.from_pretrained(network(built), tmp_path / "out" / f"checkpoint-{step}")
        now = component_at(loaded, HOOK, "default").by_feature()
        for each in found.features:
            place = lessons.ACTIVE.index(each.feature)
            for name, values in each.parameters.items():
                assert values[at] == pytest.approx(float(now[name][place]), rel=1e-6)


def test_the_last_one_is_audited_where_there_is_data(
    built: Path, way: list[Path], audit: Command, tmp_path: Path
) -> None:
    data = ("--data", lessons.write(tmp_path / "few.jsonl", lessons.texts(5)), "--sample", 2)
    found = audit(*way, *data)
    assert found["last"] == audit(way[-1], *data)
    named = {each["feature"]: each.get("description") for each in found["last"]["features"]}
    assert [each.get("description") for each in found["features"][:2]] == [named[3], named[5]]


def test_names_are_the_descriptions(way: list[Path], tmp_path: Path, shown: Command) -> None:
    words = tmp_path / "names.csv"
    words.write_text("index,description\n3,dates\n40,rain\n", "utf-8")
    err = shown(*way, "--descriptions", words)
    for part in ("2 -> 3 -> 2 changed", "step 100", "-0.900", "dates", "rain"):
        assert part in err


def test_many_are_shown_in_part(
    built: Path, way: list[Path], tmp_path: Path, shown: Command
) -> None:
    for step in range(12):
        shutil.copytree(way[1], tmp_path / f"checkpoint-{step}")
    err = shown(tmp_path)
    assert "8 of 12 adapters are shown" in err
    assert "step 0" in err
    assert "step 11" in err


def test_adapters_of_another_kind_are_refused_in_a_line(
    built: Path, way: list[Path], tmp_path: Path, refused: Command
) -> None:
    bias = plant(built, tmp_path / "bias", "bias", bias={3: 1.0})
    few = tmp_path / "few"
    config = SaeAdapterConfig(targets=[target(built) | {"features": [3]}], component="scale")
    get_peft_model(network(built), config).save_pretrained(few)
    other = tmp_path / "other"
    shutil.copytree(way[0], other)
    entries = json.loads((other / "adapter_config.json").read_text("utf-8"))
    entries["targets"][0]["sae"]["fingerprint"] = "0123456789abcdef"
    (other / "adapter_config.json").write_text(json.dumps(entries), "utf-8")
    cut = tmp_path / "cut"
    shutil.copytree(few, cut)
    shutil.copy(way[0] / "adapter_model.safetensors", cut)
    for given, part in (
        ((way[0], bias), "its component, bias in place of scale"),
        ((way[0], few), f"the features at {HOOK}"),
        ((way[0], other), f"the SAE at {HOOK}"),
        ((way[0], cut), "not those of a scale on the features"),
        ((way[0], way[0]), "is given twice"),
        ((way[0], built), "holds no adapter_config.json, and no checkpoints"),
        ((*way, "--by", "size"), "expected --data or --reference as well"),
        ((*way, "--tuned", "model", "--setting", built / "tiny.toml"), "does not apply to --tuned"),
    ):
        assert part in refused(*given), given


def test_one_adapter_is_audited_as_ever(way: list[Path], audit: Command) -> None:
    assert audit(way[0])["format"] == "cleansteer-audit/1"
