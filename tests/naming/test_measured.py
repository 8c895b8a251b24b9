"""Names of features by a run of the same SAE, and of no other."""

from pathlib import Path

import lessons
import pandas as pd
import pytest
import teaching
import torch
import world
from cleansteer.adapters import train
from cleansteer.core.errors import InputError
from cleansteer.core.runs import RunDirectory
from cleansteer.core.settings import read_setting
from cleansteer.core.tracked import read_tracking
from cleansteer.naming.measured import name_by_tokens, read_run, told_tokens
from cleansteer.naming.source import dictionary_of


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = teaching.build(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        assert world.run(patch, "features", folder / "tiny.toml", "--run", folder / "run") == 0
    return folder


def test_a_run_names_features_by_their_tokens(built: Path) -> None:
    dictionary = dictionary_of(RunDirectory.existing(built / "run"))
    assert dictionary.n_features == 96
    names = read_run(built / "run", dictionary.fingerprint)
    table = pd.read_parquet(built / "run" / "features.parquet")
    assert names == name_by_tokens(table)
    assert len(names) > 48
    first = table.set_index("feature").loc[next(iter(names)), "peak_top_tokens"][0]
    assert first.strip() in next(iter(names.values()))


def test_a_run_of_another_sae_names_nothing(built: Path) -> None:
    """Two SAEs of as many features, each from a directory: the weights decide."""
    with pytest.raises(InputError, match=r"fingerprint .* expected another"):
        read_run(built / "run", "another")


@pytest.mark.parametrize("same", [True, False])
def test_a_training_takes_names_from_a_run_of_its_sae_alone(
    same: bool, built: Path, tmp_path: Path
) -> None:
    run = built / "run"
    if not same:
        run = tmp_path / "other"
        RunDirectory.existing(built / "run").copy_to(run)
        text = (run / "manifest.json").read_text("utf-8")
        known = RunDirectory.existing(run).manifest.fingerprints
        assert known is not None
        (run / "manifest.json").write_text(text.replace(known.sae, "0" * len(known.sae)), "utf-8")
    with torch.enable_grad():
        train(
            read_setting(built / "tiny.toml"),
            lessons.texts(12),
            out=tmp_path / "out",
            run=run,
            max_steps=2,
            progress=False,
        )
    assert read_tracking(tmp_path / "out")["description"].any() == same


def test_tokens_are_told_once_each_and_without_blanks() -> None:
    assert told_tokens([" can", "can", "\n", " must", "\x1b[1m"]) == "can must [1m"
