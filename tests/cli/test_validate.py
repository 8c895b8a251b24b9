"""``cleansteer validate``: a verdict on labels that are there, from a run or anybody's table."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import quick
import world
from cleansteer.core.records import Interval, Skill, Verdict
from cleansteer.core.records.validation import (
    Ceiling,
    Cell,
    Coverage,
    Covered,
    Examination,
    Floor,
    Overall,
    Residualised,
    SetSkill,
    Transfer,
    TransferCell,
    Validation,
)
from cleansteer.core.tables import read_table
from cleansteer.predictor.model.targets import ABSOLUTE

MEASURED = ("stability_abs", "collateral_count_0.05", "effect_l2")
QUICK = ("--repeats", 1, "--shuffles", 2)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work; a terminal of 80 columns."""
    quick.cheapen(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with statistics and labels."""
    folder = tmp_path_factory.mktemp("world")
    setting = world.build(folder)
    with pytest.MonkeyPatch.context() as patch:
        for command in ("features", "evaluate"):
            assert world.run(patch, command, setting, "--run", folder / "run") == 0
    return folder / "run"


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "run"))


def table(n: int = 40) -> pd.DataFrame:
    """Labels that follow what no baseline sees."""
    generator = np.random.default_rng(0)
    values = generator.lognormal(size=(n, 4))
    names = ["final_act_freq", "final_act_mean", "decoder_norm", "crowding_max_abs_cos"]
    made = pd.DataFrame(values, columns=names)
    told = np.log(made["crowding_max_abs_cos"]) + 0.1 * generator.normal(size=n)
    made["stability_abs"] = 1 / (1 + np.exp(-told))
    made["collateral_count_0.05"] = np.exp(1.0 - told)
    made["effect_l2"] = np.exp(0.1 * generator.normal(size=n))
    return made.rename_axis("feature").reset_index()


def write(path: Path, made: pd.DataFrame) -> Path:
    made.to_csv(path, index=False)
    return path


def test_the_widest_figures_fit_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Every interval below zero, every target, every set with the longest names."""
    from cleansteer.cli.validated import print_examination, print_overall
    from rich.console import Console

    low = Interval(value=-0.29, low=-0.48, high=-0.17)
    methods = ("ours", "ridge", "boosting", "freq_only", "activation_magnitude_only")
    skills = {
        target: Skill(
            target=target,
            scores=dict.fromkeys(methods, low),
            over_best_baseline=low,
            over_ridge=low,
            best_baseline="freq_only",
            n_features=3000,
            constant=False,
        )
        for target in ABSOLUTE.targets
    }
    covered = Coverage(covered=240, n=300, mean_width=1.0)
    names = ("activation_magnitude_only", "activation_shape_only", "full_no_magnitude")
    examination = Examination(
        name="llama_3_1_8b",
        n_features=3000,
        n_statistics=24,
        seed=0,
        repeats=3,
        notes=["columns are the replication's, renamed to ours"],
        skill=skills,
        reliability={t: Ceiling(published=0.8, whole=0.9, ceiling=0.95) for t in ABSOLUTE.targets},
        floor=Floor(shuffles=20, scores=[-0.05] * 20, quantile_95=-0.05),
        coverage={"80%": dict.fromkeys(ABSOLUTE.targets, covered)},
        partial_rank_correlations={},
        sets={n: dict.fromkeys(ABSOLUTE.targets, SetSkill(ridge=-0.29, ours=-0.31)) for n in names},
        residualised={
            "replication": Residualised(
                controls=["effect_l2", "final_act_mean", "final_act_freq"],
                sets={n: {"collateral_count_0.05": low} for n in names},
            )
        },
        trust=Verdict(overall="not trusted", axes={}, fresh_check=False),
    )
    cell = TransferCell(
        table="pythia_70m_deduped", target=ABSOLUTE.targets[2], transferred=low, within=low
    )
    overall = Overall(
        n_cells=20,
        means={"ours": 0.582},
        least_lead_over_ridge=Cell(table="llama_3_1_8b", target=ABSOLUTE.targets[0], value=-0.1),
        coverage={"80%": Covered(covered=4801, n=6000)},
    )
    validation = Validation(
        tables=[examination],
        overall=overall,
        transfer=Transfer(statistics=["decoder_norm"], folds_within=5, cells=[cell]),
    )
    console = Console(width=80)
    print_examination(console, examination)
    print_overall(console, validation)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "Intervals of 80% hold 80.0% of 6000 labels" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("-.29 [-.48, -.17]") == 2 * len(ABSOLUTE.targets) + 1


def strict(text: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def test_a_run_gets_its_record_and_people_read_stderr(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = (run / "labels.parquet").read_bytes()
    before = {path.name for path in run.iterdir()}
    assert world.run(monkeypatch, "validate", run, *QUICK) == 0
    out, err = capfd.readouterr()
    assert out == ""
    record = strict((run / "validation.json").read_text("utf-8"))
    assert {path.name for path in run.iterdir()} == before | {"validation.json"}
    assert (run / "labels.parquet").read_bytes() == labels
    assert record["name"] == "run"
    n = int((read_table(run / "labels.parquet")["context_type"] == "mixed").sum())
    assert record["n_features"] == n >= 30
    assert list(record["skill"]) == list(record["coverage"]["90%"]) == list(ABSOLUTE.targets)
    assert all(0 <= found["ceiling"] <= 1 for found in record["reliability"].values())
    assert set(ABSOLUTE.targets) <= set(record["reliability"])
    assert set(record["residualised"]) == {"paper", "replication"}
    for part in ("out-of-fold Spearman", "Floor:", "Intervals of 90%", "Verdict:"):
        assert part in err
    assert f"{record['trust']['overall']}" in err


def test_everything_fits_a_terminal_of_80_columns(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "pythia_70m_deduped.csv", table())
    assert world.run(monkeypatch, "validate", run, other, *QUICK) == 0
    err = capfd.readouterr().err
    assert "…" not in err
    assert max(len(line) for line in err.splitlines()) <= 80
    for name in ("clean", "stability", "per effect", "count", "effect"):
        assert any(line.strip().startswith(f"{name} ") for line in err.splitlines()), name
    assert "Transfer" in err


def test_json_is_all_that_stdout_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out_path = write(tmp_path / "mine.csv", table()), tmp_path / "new" / "found.json"
    code = world.run(monkeypatch, "validate", path, *QUICK, "--json", "--out", out_path)
    assert code == 0
    found = strict(capfd.readouterr().out)
    assert found == strict(out_path.read_text("utf-8"))
    assert Validation.model_validate(found).overall.n_cells == 5
    assert [t["name"] for t in found["tables"]] == ["mine"]
    assert found["overall"]["n_cells"] == 5
    assert "transfer" not in found
    assert "learning_curve" not in found
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.csv", "new"]


def test_a_curve_is_drawn_and_its_points_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, plot = write(tmp_path / "mine.csv", table()), tmp_path / "curve.svg"
    code = world.run(monkeypatch, "validate", path, *QUICK, "--curve", plot, "--json")
    assert code == 0
    texts = {e.text.strip() for e in ET.parse(plot).iter() if e.text}
    assert {"mine", "ridge", "boosting", "ours", "labelled features"} <= texts
    points = pd.read_csv(tmp_path / "curve.csv")
    assert set(points["method"]) == {"ridge", "boosting", "ours"}
    assert set(points["n"]) == {32}
    found = strict(capfd.readouterr().out)["learning_curve"]
    assert found["points"] == points.to_dict("records")
    lead = found["ours_with_all_minus_ridge_with_few"]["mine"]
    assert (lead["ours"], lead["ridge"]) == (32, 32)
    assert lead["low"] <= lead["value"] <= lead["high"]


def test_strict_exits_3_on_shuffled_labels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, shuffled = table(), table()
    order = np.random.default_rng(0).permutation(len(real))
    shuffled[list(MEASURED)] = real[list(MEASURED)].to_numpy()[order]
    verdicts = {}
    for name, made in (("real", real), ("shuffled", shuffled)):
        path, out = write(tmp_path / f"{name}.csv", made), tmp_path / f"{name}.json"
        code = world.run(monkeypatch, "validate", path, *QUICK, "--strict", "--out", out)
        verdicts[name] = (code, strict(out.read_text("utf-8"))["tables"][0]["trust"]["overall"])
    assert verdicts == {"real": (0, "trusted"), "shuffled": (3, "not trusted")}
    again = world.run(monkeypatch, "validate", tmp_path / "shuffled.csv", *QUICK)
    assert again == 0


def test_a_label_that_is_the_same_for_all_is_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "mine.csv", table().assign(stability_abs=0.25))
    assert world.run(monkeypatch, "validate", path, *QUICK) == 0
    shown = " ".join(capfd.readouterr().err.split())
    assert "stability: not trusted (the label is the same for all labelled features" in shown


def test_others_columns_by_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    theirs = table().rename(columns={"feature": "id", "effect_l2": "size"})
    path = write(tmp_path / "theirs.csv", theirs)
    mapping = tmp_path / "map.toml"
    mapping.write_text('[columns]\nid = "feature"\nsize = "effect_l2"\n', "utf-8")
    options = ("--repeats", 1, "--shuffles", 0, "--json")
    assert world.run(monkeypatch, "validate", path, "--columns", mapping, *options) == 0
    assert set(strict(capfd.readouterr().out)["tables"][0]["skill"]) == set(ABSOLUTE.targets)


def refused_csv(made: pd.DataFrame) -> str:
    return made.to_csv(index=False)


GOOD = table()
BAD: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "too few": (
        refused_csv(GOOD.iloc[:29]),
        None,
        ("29 labelled features", "expected at least 30", "label more"),
    ),
    "NaN": (
        refused_csv(GOOD.assign(decoder_norm=[np.nan, *range(39)])),
        None,
        ("'decoder_norm'", "nan", "feature 0", "expected finite numbers", "compute it anew"),
    ),
    "infinite": (
        refused_csv(GOOD.assign(effect_l2=[np.inf, *range(39)])),
        None,
        ("'effect_l2'", "inf", "feature 0", "expected finite"),
    ),
    "twice": (
        refused_csv(pd.concat([GOOD, GOOD.iloc[:1]])),
        None,
        ("feature 0", "expected every feature once", "keep one"),
    ),
    "no labels": (
        refused_csv(GOOD.drop(columns=list(MEASURED))),
        None,
        ("none of the labels", "give --columns"),
    ),
    "no features": (refused_csv(GOOD.iloc[:0]), None, ("holds no feature", "one row a feature")),
    "broken": ('feature,a\n1,2\n1,"2,3\n1,2,3,4\n', None, ("not readable CSV", "write it anew")),
    "no mapping": (refused_csv(GOOD), 'a = "b"', ("no table [columns]", "add it")),
    "mapping of nothing": (
        refused_csv(GOOD),
        '[columns]\nnorm = "decoder_norm"',
        ("no column 'norm'", "it holds feature", "correct the mapping"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text, mapping, expected = BAD[case]
    (tmp_path / "good.csv").write_text(refused_csv(GOOD), "utf-8")
    (tmp_path / "bad.csv").write_text(text, "utf-8")
    options: tuple[object, ...] = ()
    sources: tuple[object, ...] = (tmp_path / "good.csv", tmp_path / "bad.csv")
    if mapping is not None:
        (tmp_path / "map.toml").write_text(mapping, "utf-8")
        options, sources = ("--columns", tmp_path / "map.toml"), sources[1:]
    before = sorted(tmp_path.iterdir())
    out, curve = tmp_path / "out.json", tmp_path / "curve.svg"
    code = world.run(monkeypatch, "validate", *sources, "--out", out, "--curve", curve, *options)
    assert code == 2
    world.one_line(capfd, *expected)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("RUN|TABLE",)),
        (("nowhere",), ("nowhere", "no run directory and no .csv or .parquet table")),
        (("nowhere.csv",), ("nowhere.csv", "does not exist")),
        (("x.csv", "--repeats", "0"), ("--repeats", "0")),
        (("x.csv", "--shuffles", "-1"), ("--shuffles", "-1")),
        (("x.csv", "--seed", "-1"), ("--seed", "-1")),
        (("x.csv", "--curve", "c.pdf"), ("c.pdf", "ends in .svg or .png")),
        (("x.csv", "--columns", "no.toml"), ("no.toml", "correct it")),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...],
    expected: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert world.run(monkeypatch, "validate", *arguments) == 2
    world.one_line(capfd, *expected)
    assert not list(tmp_path.iterdir())


def test_a_mapping_for_runs_alone_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text('[columns]\nid = "feature"\n', "utf-8")
    capfd.readouterr()
    for command in ("validate", "fit"):
        before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
        arguments = (run, "--columns", mapping, "--out", tmp_path / "out")
        assert world.run(monkeypatch, command, *arguments) == 2
        world.one_line(capfd, "--columns", "only run directories", "leave it out")
        assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
        assert not (tmp_path / "out").exists()


def test_a_run_with_labels_of_another_setting_is_left_as_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    features = read_table(run / "features.parquet")
    features[features["feature"] > 50].to_parquet(run / "features.parquet")
    assert world.run(monkeypatch, "validate", run, *QUICK) == 2
    assert "the labels belong to another setting" in capfd.readouterr().err
    assert not (run / "validation.json").exists()


def test_labels_of_another_mode_beside_the_runs_own_change_nothing(
    built: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cleansteer.predictor.evidence.tables import read_labelled

    setting = built.parent / "tiny.toml"
    arguments = ("evaluate", setting, "--run", run, "--features", "3,5", "--mode", "clamp_q95")
    assert world.run(monkeypatch, *arguments) == 0
    one, other = read_labelled(built), read_labelled(run)
    pd.testing.assert_frame_equal(one.labels, other.labels, check_exact=True)
