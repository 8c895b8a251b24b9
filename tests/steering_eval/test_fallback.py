"""Where the fast pass is wrong, or does not know the model, the slow one does the work and says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import torch
import world
from cleansteer.core.tables import read_table
from cleansteer.steering_eval.rerun import FullForward
from cleansteer.steering_eval.resume import ResumedForward
from cleansteer.steering_eval.vocabulary import VocabularyReader
from torch import Tensor

SINGLE = 1e-4  # float32 against float32, by other products
CROSSINGS = 2  # entries that rounding may carry across a threshold, in all contexts of a row
FEATURES = "4,8,40"
WARNING = "features are steered by full forward passes"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    return folder


@pytest.fixture(scope="module")
def resumed(built: Path) -> Path:
    """A run by the fast pass as it is."""
    with pytest.MonkeyPatch.context() as patch:
        assert evaluate(built, built / "resumed", patch, FEATURES) == 0
    return built / "resumed"


def evaluate(built: Path, run: Path, patch: pytest.MonkeyPatch, features: str) -> int:
    arguments = ("evaluate", built / "tiny.toml", "--run", run, "--features", features)
    return world.run(patch, *arguments)


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text("utf-8"))


def assert_same_labels(one: Path, other: Path) -> None:
    for name in ("labels", "halves"):
        found, expected = (read_table(run / f"{name}.parquet") for run in (one, other))
        assert list(found.columns) == list(expected.columns)
        assert len(found) == len(expected) > 0
        crossing = CROSSINGS / expected["n_contexts"]
        for column in expected:
            if not pd.api.types.is_numeric_dtype(expected[column]):
                assert found[column].equals(expected[column])
                continue
            slack = pd.Series(1e-6, expected.index)
            if column == "collateral_per_effect":
                slack += crossing / expected["effect_l2"]
            elif "count" in column or column == "anti_aligned_frac":
                slack += crossing
            elif column == "delta_token_confidence":  # a difference of logarithms
                slack += SINGLE
            allowed = slack + SINGLE * expected[column].abs()
            assert ((found[column] - expected[column]).abs() <= allowed).all(), column


def test_a_right_fast_pass_is_believed(
    built: Path, resumed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert evaluate(built, resumed, monkeypatch, "5") == 0
    assert "warning" not in capfd.readouterr().err
    found = manifest(resumed)["evaluator"]
    assert found["method"] == "resumed"
    assert 0 < found["largest_difference"] < 1e-4 < found["tolerance"]


@pytest.mark.parametrize(("features", "pairs"), [("4", 1), ("4,8", 2), ("4,5,8,40,77", 3)])
def test_the_manifest_says_how_many_pairs_were_compared(
    features: str, pairs: int, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    slowly = FullForward.run

    def run(self: FullForward, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        compared.append(arguments)
        return slowly(self, *arguments)

    monkeypatch.setattr(FullForward, "run", run)
    assert evaluate(built, tmp_path / "run", monkeypatch, features) == 0
    assert len(compared) == pairs
    assert manifest(tmp_path / "run")["evaluator"]["pairs_compared"] == pairs


def wrong_output(steered: Tensor, output: Tensor, tapped: Tensor) -> tuple[Tensor, Tensor]:
    return output + 0.01 * steered, tapped


def wrong_tap(steered: Tensor, output: Tensor, tapped: Tensor) -> tuple[Tensor, Tensor]:
    return output, tapped - 0.01 * steered


def no_number(steered: Tensor, output: Tensor, tapped: Tensor) -> tuple[Tensor, Tensor]:
    return output * torch.nan, tapped


def infinite_tap(steered: Tensor, output: Tensor, tapped: Tensor) -> tuple[Tensor, Tensor]:
    return output, torch.cat([tapped[:, :1], tapped[:, 1:] + torch.inf], dim=1)


Wrong = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@pytest.mark.parametrize("wrong", [wrong_output, wrong_tap, no_number, infinite_tap])
def test_a_wrong_fast_pass_is_found_and_not_used(
    wrong: Wrong,
    built: Path,
    resumed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    right = ResumedForward.resume

    def resume(self: ResumedForward, steered: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return wrong(steered, *right(self, steered, *rest))

    monkeypatch.setattr(ResumedForward, "resume", resume)
    run = tmp_path / "run"
    capfd.readouterr()
    assert evaluate(built, run, monkeypatch, FEATURES) == 0
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert out == ""
    found = manifest(run)["evaluator"]
    assert found["method"] == "full"
    assert found["reason"].startswith("fast and slow differ by ")
    assert line.startswith(f"warning: {found['reason']}: {WARNING}")
    difference = found.get("largest_difference")
    assert difference is None or difference > 1e-3  # JSON has no word for NaN and infinity
    assert_same_labels(run, resumed_alone(resumed, tmp_path))


def test_a_full_pass_that_is_not_the_models_is_refused(
    unknown: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As where logits are divided behind the unembedding and nobody knows."""
    right = VocabularyReader.logits
    monkeypatch.setattr(VocabularyReader, "logits", lambda self, output: 8.0 * right(self, output))
    capfd.readouterr()
    arguments = (
        "evaluate",
        unknown / "tiny.toml",
        "--run",
        tmp_path / "run",
        "--features",
        FEATURES,
    )
    assert world.run(monkeypatch, *arguments) == 2
    err = capfd.readouterr().err.splitlines()
    assert "what would be measured is not what the model does" in err[-1]
    assert not (tmp_path / "run" / "labels.parquet").exists()


def resumed_alone(resumed: Path, folder: Path) -> Path:
    """The rows of ``FEATURES`` of the fast run."""
    wanted = [int(feature) for feature in FEATURES.split(",")]
    for name in ("labels", "halves"):
        table = read_table(resumed / f"{name}.parquet")
        table = table[table["feature"].isin(wanted)].reset_index(drop=True)
        table.to_parquet(folder / f"{name}.parquet")
    return folder


def test_what_was_once_found_wrong_is_not_tried_again(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        right = ResumedForward.resume
        patch.setattr(ResumedForward, "resume", lambda *all_: wrong_output(all_[1], *right(*all_)))
        assert evaluate(built, run, patch, "4") == 0
    before = manifest(run)["evaluator"]

    def fail(*arguments: object) -> None:
        pytest.fail("the fast pass was used")

    monkeypatch.setattr(ResumedForward, "freeze", fail)
    monkeypatch.setattr(ResumedForward, "resume", fail)
    capfd.readouterr()
    assert evaluate(built, run, monkeypatch, "4,8") == 0
    assert "warning" not in capfd.readouterr().err
    assert manifest(run)["evaluator"] == before
    assert set(read_table(run / "labels.parquet")["feature"]) == {4, 8}


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller world with a model of a family that the fast pass does not know."""
    folder = tmp_path_factory.mktemp("unknown")
    path = world.build(folder)
    families.network(families.UNKNOWN, torch.float32).save_pretrained(folder / "model")
    text = path.read_text("utf-8")
    for old, new in (
        ("n_contexts = 96", "n_contexts = 60"),
        ("n_contexts = 40", "n_contexts = 20"),
        ("contexts_per_type = 6", "contexts_per_type = 3"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text + "n_controls = 20\n", "utf-8")
    return folder


def test_an_unknown_family_is_screened_slowly_and_says_so(
    unknown: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = unknown / "run"
    arguments = ("screen", unknown / "tiny.toml", "--run", run, "--labels", 40)
    assert world.run(monkeypatch, *arguments) == 0
    out, err = capfd.readouterr()
    assert out == ""
    reason = "the fast evaluator does not know models of type 'phi'"
    lines = " ".join(err.split())
    assert lines.count(f"warning: {reason}: {WARNING}") == 1
    assert f"Self-check: full forward passes were used, because {reason}" in lines
    assert "and the model's own differ by" in lines
    found = manifest(run)["evaluator"]
    assert (found["method"], found["reason"], found["pairs_compared"]) == ("full", reason, 3)
    assert found["largest_difference"] < SINGLE < found["tolerance"]
    screening = json.loads((run / "screening.json").read_text("utf-8"))
    assert screening["self_check"] == found
    assert screening["n_labelled"] == 40
    labels = read_table(run / "labels.parquet")
    assert np.isfinite(labels.select_dtypes("number").to_numpy()).all()
    assert (labels["effect_l2"] > 0).all()
    ranking = read_table(run / "ranking.parquet")
    assert sorted(ranking["feature"]) == list(range(96))
    assert json.loads((run / "allowlist.json").read_text("utf-8"))["features"]
