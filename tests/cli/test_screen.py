"""The main road, end to end, on a tiny world; and that its pieces can be entered anywhere."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reported
import world
from cleansteer.core.tables import read_table
from cleansteer.study import statistics
from cleansteer.study.published import Published

TABLES = ("features", "labels", "fresh_labels", "ranking")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder, "jumprelu")
    return folder


@pytest.fixture(scope="module")
def screened(built: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        assert world.run(patch, "screen", built / "tiny.toml", "--run", built / "run") == 0
    return built / "run"


def test_every_file_of_the_plan_is_there(screened: Path) -> None:
    names = {path.name for path in screened.iterdir()}
    assert names >= {
        "manifest.json",
        "features.parquet",
        "labels.parquet",
        "fresh_labels.parquet",
        "predictor",
        "ranking.parquet",
        "screening.json",
        "allowlist.json",
    }
    assert not [name for name in names if name.startswith(".") or "unfinished" in name]


def test_ranking_has_every_feature_once_by_falling_score(screened: Path) -> None:
    ranking = read_table(screened / "ranking.parquet")
    assert sorted(ranking["feature"]) == list(range(96))
    assert list(ranking["rank"]) == list(range(1, 97))
    assert ranking["predicted_clean_score"].is_monotonic_decreasing
    assert (ranking["predicted_clean_score_low"] <= ranking["predicted_clean_score_high"]).all()
    assert (ranking["measured_clean_score"].notna() == ranking["measured"]).all()
    assert ranking["measured"].sum() == 60 or ranking["measured"].sum() == ranking["eligible"].sum()


def test_fresh_check_uses_features_that_were_not_fitted_on(screened: Path) -> None:
    check = json.loads((screened / "screening.json").read_text("utf-8"))["fresh_check"]
    groups = [set(features) for features in check["features"].values()]
    assert len(groups) == 3
    assert all(len(group) == check["group_size"] for group in groups)
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    fresh = read_table(screened / "fresh_labels.parquet")
    assert set(fresh["feature"]) == set.union(*groups)
    assert (fresh["n_contexts"] == 40).all()


def test_allowlist_names_its_model_and_sae_and_carries_the_verdict(screened: Path) -> None:
    allowlist = json.loads((screened / "allowlist.json").read_text("utf-8"))
    manifest = json.loads((screened / "manifest.json").read_text("utf-8"))
    screening = json.loads((screened / "screening.json").read_text("utf-8"))
    assert allowlist["format"] == "cleansteer-allowlist/1"
    assert allowlist["sae"]["fingerprint"] == manifest["fingerprints"]["sae"]
    prints = manifest["fingerprints"]
    assert allowlist["model"] == {
        "name": "model",
        "fingerprint": prints["model"],
        "contents": prints["model_contents"],
    }
    assert allowlist["hook"] == "blocks.1.hook_resid_pre"
    assert allowlist["trust"] == screening["trust"]
    ranking = read_table(screened / "ranking.parquet").set_index("feature")
    assert ranking.loc[allowlist["features"], "eligible"].all()


def test_manifest_records_the_check_of_fast_against_slow(screened: Path) -> None:
    manifest = json.loads((screened / "manifest.json").read_text("utf-8"))
    assert manifest["evaluator"]["method"] == "resumed"
    assert 0 < manifest["evaluator"]["largest_difference"] < 1e-4
    assert manifest["versions"]["torch"]


def test_screening_carries_reliability_controls_and_self_check(screened: Path) -> None:
    screening = json.loads((screened / "screening.json").read_text("utf-8"))
    controls = screening["controls"]
    for found in controls["reliability"].values():
        assert found["low"] <= found["value"] <= found["high"] <= found["whole"] + 1
    random = read_table(screened / "random_directions.parquet").set_index("feature")
    labels = read_table(screened / "labels.parquet").query("context_type == 'mixed'")
    paired = labels.set_index("feature").loc[random.index]
    for column in ("n_contexts", "coefficient", "context_act_mean"):
        pd.testing.assert_series_equal(random[column], paired[column])
    compared = controls["random_directions"]["labels"]["effect_l2"]
    assert compared["random"] == pytest.approx(random["effect_l2"].mean())
    assert compared["features"] == pytest.approx(paired["effect_l2"].mean())
    dense = controls["dense_panel"]
    assert dense["mean_count_without"] <= dense["mean_count"]
    assert 0 <= dense["n_dense"] <= dense["n_panel"] == 80
    assert screening["self_check"]["pairs_compared"] >= 3


def assert_same_tables(one: Path, other: Path) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(
            read_table(one / f"{name}.parquet"),
            read_table(other / f"{name}.parquet"),
            check_exact=True,
        )
    assert (one / "screening.json").read_text() == (other / "screening.json").read_text()


def test_twice_gives_identical_tables(
    built: Path, screened: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = built / "again"
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", again) == 0
    assert_same_tables(screened, again)


def test_going_on_after_any_piece_gives_the_same(
    built: Path, screened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lost in ("labels.parquet", "features.parquet", "fresh_labels.parquet", "ranking.parquet"):
        copy = tmp_path / lost
        shutil.copytree(screened, copy)
        (copy / lost).unlink()
        assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", copy) == 0
        assert_same_tables(screened, copy)


def test_stages_one_by_one_give_the_same(
    built: Path, screened: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    setting = built / "tiny.toml"
    assert world.run(monkeypatch, "features", setting, "--run", run) == 0
    assert world.run(monkeypatch, "evaluate", setting, "--run", run) == 0
    assert world.run(monkeypatch, "rank", run) == 0
    assert world.run(monkeypatch, "screen", setting, "--run", run) == 0
    assert_same_tables(screened, run)


def test_evaluate_adds_other_modes_beside_the_labels(
    built: Path,
    screened: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(screened, run)
    (tmp_path / "ids.txt").write_text("3\n5\n", "utf-8")
    arguments = ("evaluate", built / "tiny.toml", "--run", run, "--features", tmp_path / "ids.txt")
    capfd.readouterr()
    assert world.run(monkeypatch, *arguments, "--mode", "clamp_q95", "--json") == 0
    rows = json.loads(capfd.readouterr().out)
    assert [row["feature"] for row in rows] == [3, 5]
    assert {row["mode"] for row in rows} == {"clamp_q95"}
    before = read_table(screened / "labels.parquet")
    after = read_table(run / "labels.parquet")
    pd.testing.assert_frame_equal(
        after[after["mode"] == "add"].reset_index(drop=True), before, check_exact=True
    )
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", run) == 0


def test_json_goes_to_stdout_alone(
    built: Path,
    screened: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", screened, "--json") == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown == json.loads((screened / "screening.json").read_text("utf-8"))


def test_summary_goes_to_stderr_and_names_the_best(
    built: Path,
    screened: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", screened) == 0
    out, err = capfd.readouterr()
    assert out == ""
    ranking = read_table(screened / "ranking.parquet")
    best = ranking[ranking["eligible"]].iloc[0]
    lines = err.splitlines()
    assert any(line.split()[:2] == [str(best["rank"]), str(best["feature"])] for line in lines)
    for part in ("Cleanest features", "Messiest features", "Fresh check", "ranking.parquet"):
        assert part in err


def test_descriptions_name_features_in_summary_and_report(
    built: Path,
    screened: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    best = read_table(screened / "ranking.parquet").query("eligible").iloc[0]
    names = built / "names.csv"
    names.write_text(f"index,description\n{best['feature']},tiny talk of tests\n400,elsewhere\n")
    again = ("screen", built / "tiny.toml", "--run", screened, "--descriptions")
    capfd.readouterr()
    assert world.run(monkeypatch, *again, names) == 0
    err = capfd.readouterr().err
    assert err.count("1 of 2 rows skipped, the first: line 3: feature 400 is out of range") == 1
    (line,) = (line for line in err.splitlines() if "tiny talk" in line)
    assert line.split()[:2] == [str(best["rank"]), str(best["feature"])]
    assert "tiny talk of tests" in str(reported.data_of(screened / "report.html"))
    assert world.run(monkeypatch, *again, built / "missing.csv") == 2
    assert "missing.csv does not exist" in capfd.readouterr().err


def test_figures_far_from_the_published_ones_are_warned_of(
    built: Path,
    screened: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    manifest = json.loads((screened / "manifest.json").read_text("utf-8"))
    near = manifest["mean_l0"]["downstream_sae"]
    published = Published(l0=1000.0, downstream_l0=near, n_eligible=10**6)
    monkeypatch.setattr(statistics, "published_for", lambda setting: published)
    capfd.readouterr()
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", tmp_path / "run") == 0
    shown = capfd.readouterr().err.split("Ranking:")[0]
    for warnings in (
        json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))["warnings"],
        json.loads((tmp_path / "run" / "screening.json").read_text("utf-8"))["warnings"],
    ):
        assert len(warnings) == 2
        assert warnings[0].startswith("mean L0 of the steered SAE")
        assert warnings[1].startswith("number of eligible features")
    assert "warning: mean L0 of the steered SAE" in shown


def test_strict_exits_3_where_nothing_can_be_trusted(
    built: Path, screened: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = json.loads((screened / "screening.json").read_text("utf-8"))["trust"]["overall"]
    code = world.run(monkeypatch, "screen", built / "tiny.toml", "--run", screened, "--strict")
    assert code == (3 if verdict == "not trusted" else 0)


def test_allowlists_by_count_and_by_score(
    screened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = read_table(screened / "ranking.parquet")
    eligible = ranking[ranking["eligible"]]
    out = tmp_path / "list.json"
    assert world.run(monkeypatch, "allowlist", screened, "--top", 7, "--out", out) == 0
    listed = json.loads(out.read_text("utf-8"))
    assert listed["features"] == sorted(eligible["feature"].head(7).tolist())
    middle = float(eligible["predicted_clean_score"].median())
    assert world.run(monkeypatch, "allowlist", screened, "--min-score", middle, "--out", out) == 0
    listed = json.loads(out.read_text("utf-8"))
    expected = eligible.loc[eligible["predicted_clean_score"] >= middle, "feature"]
    assert listed["features"] == sorted(expected.tolist())


def test_allowlists_by_axis_and_with_floors(
    screened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking, out = read_table(screened / "ranking.parquet"), tmp_path / "list.json"
    eligible = ranking[ranking["eligible"]]
    for name in ("clean_score", "stability_abs", "collateral_per_effect"):
        low, middle, high = (eligible[f"predicted_{name}{end}"] for end in ("_low", "", "_high"))
        assert ((low <= middle) & (middle <= high)).mean() > 0.9
    floor = float(eligible["predicted_stability_abs_low"].median())
    asked = ("--by", "collateral", "--min-stability", floor, "--top", 5, "--out", out)
    assert world.run(monkeypatch, "allowlist", screened, *asked) == 0
    listed = json.loads(out.read_text("utf-8"))
    passing = eligible[eligible["predicted_stability_abs_low"] >= floor]
    best = passing.sort_values("predicted_collateral_per_effect", kind="stable").head(5)
    assert listed["features"] == sorted(best["feature"].tolist())
    assert listed["criterion"]["min_stability"] == floor


@pytest.mark.usefixtures("unchecked")
def test_what_features_cannot_be_chosen_by(
    screened: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run(monkeypatch, "allowlist", screened, "--by", "cleanest") == 2
    world.one_line(capsys, "--by 'cleanest'", "clean, stability, collateral, both")


def test_a_killed_screen_goes_on_to_the_same_tables(
    built: Path, screened: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "import torch; torch.set_num_threads(1)\nfrom cleansteer.cli.app import main; main()",
        "screen",
        str(built / "tiny.toml"),
        "--run",
        str(run),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run / "features.parquet").exists() and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not (run / "screening.json").exists()
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert_same_tables(screened, run)


def test_labels_are_finite(screened: Path) -> None:
    labels = read_table(screened / "labels.parquet")
    assert np.isfinite(labels.select_dtypes("number").to_numpy()).all()
