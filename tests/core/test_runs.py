"""Run directories: what was made is found again, and never mistaken for another's."""

import json
from pathlib import Path

import minimal
import pandas as pd
import pytest
import torch
from cleansteer.core.caller import called_as, spell_call
from cleansteer.core.errors import InputError
from cleansteer.core.layout import MANIFEST
from cleansteer.core.records import Fingerprints
from cleansteer.core.runs import RunDirectory

TENSORS = Fingerprints(model="abc", sae="def", downstream_sae="012")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "minimal"


@pytest.fixture
def made(path: Path) -> RunDirectory:
    run = RunDirectory.open(path, minimal.setting())
    run.update(fingerprints=TENSORS)
    run.write_table("features.parquet", pd.DataFrame({"feature": [1, 2]}))
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_opening_writes_nothing(path: Path, tmp_path: Path) -> None:
    RunDirectory.open(path, minimal.setting())
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="holds no run"):
        RunDirectory.existing(path)


def test_the_same_setting_finds_what_was_made(made: RunDirectory, path: Path) -> None:
    again = RunDirectory.open(path, minimal.setting())
    assert again.manifest == made.manifest == RunDirectory.existing(path).manifest
    assert again.has("features.parquet")
    assert not again.has("labels.parquet")
    assert list(again.table("features.parquet", ("feature",))["feature"]) == [1, 2]


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_setting_is_refused_unless_it_may_overwrite(
    made: RunDirectory, path: Path, overwrite: bool
) -> None:
    before = contents(path)
    other = minimal.setting(n_texts=5, min_chars=7)
    if overwrite:
        run = RunDirectory.open(path, other, overwrite=True)
        assert not run.has("features.parquet")
        run.update()
        assert RunDirectory.existing(path).setting() == other
        assert list(contents(path)) == [MANIFEST]
    else:
        with pytest.raises(InputError) as caught:
            RunDirectory.open(path, other)
        assert "corpus.min_chars: 100 -> 7; corpus.n_texts: 8000 -> 5" in str(caught.value)
        assert "--overwrite" in str(caught.value)
        assert contents(path) == before


def test_overwriting_with_the_same_setting_starts_anew(made: RunDirectory, path: Path) -> None:
    run = RunDirectory.open(path, minimal.setting(), overwrite=True)
    assert not run.has("features.parquet")
    assert run.manifest.fingerprints is None


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_left_alone(path: Path, overwrite: bool) -> None:
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds no run \(manifest.json is missing\)"):
        RunDirectory.open(path, minimal.setting(), overwrite)
    with pytest.raises(InputError, match=r"thesis.txt is a file; give another --run"):
        RunDirectory.open(path / "thesis.txt", minimal.setting(), overwrite)
    assert (path / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_may_become_a_run(path: Path) -> None:
    path.mkdir(parents=True)
    run = RunDirectory.open(path, minimal.setting())
    run.update()
    assert RunDirectory.existing(path).setting() == minimal.setting()


def test_another_format_and_a_changed_manifest_are_refused(made: RunDirectory, path: Path) -> None:
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    for change, message in (
        ({"format": "cleansteer-run/99"}, "has format 'cleansteer-run/99', expected"),
        ({"setting_fingerprint": "0"}, "saved fingerprint does not fit"),
    ):
        (path / MANIFEST).write_text(json.dumps(manifest | change), "utf-8")
        with pytest.raises(InputError, match=message):
            RunDirectory.open(path, minimal.setting())


def test_a_run_knows_its_setting_and_where_its_paths_start(path: Path, tmp_path: Path) -> None:
    setting = minimal.setting(tmp_path / "somewhere", path=None, packages=["json"])
    RunDirectory.open(path, setting).update()
    found = RunDirectory.existing(path).setting()
    assert found == setting
    assert found.fingerprint == setting.fingerprint
    assert found.locate("model") == tmp_path / "somewhere" / "model"


def test_a_setting_that_no_longer_fits_is_named(made: RunDirectory, path: Path) -> None:
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    manifest["setting"]["nonsense"] = 1
    (path / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match=r"manifest.json: entry 'setting.nonsense'.*another --run"):
        RunDirectory.existing(path)


def test_runs_of_earlier_versions_mean_what_they_meant(made: RunDirectory) -> None:
    """Before settings said which collateral, it was absolute, and linear response was not measured."""
    path = made.path / "manifest.json"
    data = json.loads(path.read_text("utf-8"))
    steering = data["setting"]["steering"]
    said = {key: steering[key] for key in ("collateral", "response")}
    assert made.manifest.setting.steering.model_dump().items() >= said.items()
    for key in said:
        del steering[key]
    path.write_text(json.dumps(data), "utf-8")
    read = RunDirectory.existing(made.path).manifest.setting.steering
    assert (read.collateral, read.response) == ("absolute", False)


def test_updating_adds_to_mappings_and_replaces_the_rest(made: RunDirectory) -> None:
    made.update(n_pairs={"labels": 3}, n_eligible=3)
    made.update(n_eligible=4, n_pairs={"fresh_labels": 5})
    saved = RunDirectory.existing(made.path).manifest
    assert saved.n_pairs == {"labels": 3, "fresh_labels": 5}
    assert saved.n_eligible == 4
    assert saved.fingerprints == TENSORS
    assert saved == made.manifest


def test_callers_are_kept_in_their_order(made: RunDirectory) -> None:
    for command in ("features", "rank"):
        with called_as("cleansteer", command, "x y"):
            made.record_call()
    with called_as(spell_call("screen", "mini", labels=3, model=object())):
        made.record_call()
    made.record_call()
    commands = RunDirectory.existing(made.path).manifest.commands
    assert [entry.command for entry in commands] == [
        ["cleansteer", "features", "x y"],
        ["cleansteer", "rank", "x y"],
        ["cleansteer.screen('mini', labels=3, model=<object>)"],
        ["python"],
    ]


def test_the_outermost_caller_is_the_real_one(made: RunDirectory) -> None:
    with called_as("cleansteer", "screen"), called_as("cleansteer.screen()"):
        made.record_call()
    assert made.manifest.commands[-1].command == ["cleansteer", "screen"]


def test_only_finished_stages_are_timed(made: RunDirectory) -> None:
    with made.timed("done"):
        pass
    with pytest.raises(KeyboardInterrupt), made.timed("interrupted"):
        raise KeyboardInterrupt
    seconds = RunDirectory.existing(made.path).manifest.seconds
    assert list(seconds) == ["done"]
    assert 0 <= seconds["done"] < 60


def test_the_libraries_that_matter_are_named(made: RunDirectory) -> None:
    versions = made.manifest.versions
    assert versions["torch"] == torch.__version__
    assert versions["pandas"] == pd.__version__
    assert "not installed" not in versions.values()


def test_contexts_come_back_as_they_were(made: RunDirectory) -> None:
    tokens = torch.randint(0, 1 << 20, (7, 5), generator=torch.Generator().manual_seed(0))
    made.write_tokens("contexts.safetensors", tokens)
    back = made.tokens("contexts.safetensors")
    assert back.dtype == torch.long
    assert torch.equal(back, tokens)


def test_broken_contexts_are_named(made: RunDirectory) -> None:
    made.write_tokens("contexts.safetensors", torch.zeros(7, 5))
    file = made.path / "contexts.safetensors"
    whole = file.read_bytes()
    for end in (0, 1, 9, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"contexts.safetensors are broken .*run again"):
            made.tokens("contexts.safetensors")
    with pytest.raises(InputError, match=r"nowhere.safetensors are broken"):
        made.tokens("nowhere.safetensors")
