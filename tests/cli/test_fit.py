"""A predictor of several settings ranks one of which nothing is labelled; one of a table is saved."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
import world
from cleansteer.core.tables import read_table, write_table
from cleansteer.predictor.model.files import load
from cleansteer.predictor.model.targets import ABSOLUTE
from cleansteer.predictor.model.transforms import rank_normalised
from pandas.testing import assert_frame_equal
from scipy.stats import spearmanr


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with statistics and no labels."""
    folder = tmp_path_factory.mktemp("world")
    setting = world.build(folder)
    with pytest.MonkeyPatch.context() as patch:
        assert world.run(patch, "features", setting, "--run", folder / "run") == 0
    return folder / "run"


def table(path: Path, statistics: pd.DataFrame, labels: pd.DataFrame) -> Path:
    """A table whose labels follow one law from the given statistics."""
    write_table(path, pd.concat([statistics, labels], axis=1).reset_index(names="feature"))
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, measured: Path) -> list[Path]:
    """Two settings with the run's kinds of statistics: clean where the decoder is long."""
    folder = tmp_path_factory.mktemp("tables")
    features = read_table(measured / "features.parquet").set_index("feature")
    columns = ["decoder_norm", "final_act_freq", "final_act_mean", "direct_logit_l2"]
    made = []
    for number in range(2):
        generator = np.random.default_rng(number)
        statistics = (
            pd.DataFrame(generator.lognormal(size=(60, len(columns))), columns=columns)
            * features[columns].mean().to_numpy()
        )
        quality = statistics["decoder_norm"] * (1 + number)
        labels = pd.DataFrame(dict.fromkeys(ABSOLUTE.targets, quality))
        made.append(table(folder / f"setting-{number}.parquet", statistics, labels))
    return made


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, tables: list[Path]) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "predictor"
    with pytest.MonkeyPatch.context() as patch:
        assert world.run(patch, "fit", *tables, "--out", out) == 0
    return out


def test_a_setting_without_labels_is_ranked_by_the_others(
    measured: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.run(monkeypatch, "rank", measured, "--predictor", fitted) == 0
    ranking = read_table(measured / "ranking.parquet").set_index("feature")
    features = read_table(measured / "features.parquet").set_index("feature")
    eligible = ranking.index[ranking["eligible"]]
    known = spearmanr(
        ranking.loc[eligible, "predicted_clean_score"], features.loc[eligible, "decoder_norm"]
    )
    assert known.statistic > 0.9, "the law of the other settings holds here"
    assert not ranking["measured"].any()
    assert ranking["predicted_clean_score_low"].isna().all(), "nobody knows the errors here"
    assert ranking.loc[eligible, "reasons"].str.contains("decoder direction").mean() > 0.5
    assert not (measured / "screening.json").exists()


def test_transfer_is_told(
    fitted: Path,
    tables: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert world.run(monkeypatch, "fit", *tables, "--out", tmp_path / "p", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {cell["table"] for cell in found["cells"]} == {"setting-0", "setting-1"}
    assert all(cell["transferred"]["low"] > 0.8 for cell in found["cells"])
    same = rank_normalised(read_table(tables[0])[load(fitted).columns_])
    assert_frame_equal(load(fitted).predict(same), load(tmp_path / "p").predict(same))


def test_a_predictor_of_one_setting_does_not_rank_another(
    measured: Path,
    tables: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert world.run(monkeypatch, "fit", tables[0], "--out", tmp_path / "one") == 0
    before = sorted(path.name for path in measured.iterdir())
    assert world.run(monkeypatch, "rank", measured, "--predictor", tmp_path / "one") == 2
    assert "fitted on the values of one setting" in capsys.readouterr().err
    assert sorted(path.name for path in measured.iterdir()) == before


def test_a_screened_run_keeps_the_ranking_that_its_verdict_is_about(
    measured: Path,
    fitted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run = shutil.copytree(measured, tmp_path / "run")
    (run / "screening.json").write_text("{}", "utf-8")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    capfd.readouterr()
    assert world.run(monkeypatch, "rank", run, "--predictor", fitted) == 2
    world.one_line(capfd, str(run), "is screened", "another --run")
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_a_predictor_that_does_not_know_the_clean_score_does_not_rank(
    measured: Path,
    tables: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from cleansteer.predictor.model.files import save
    from cleansteer.predictor.model.models import ModularityPredictor

    made = read_table(tables[0]).set_index("feature")
    statistics = rank_normalised(made.drop(columns=list(ABSOLUTE.targets)))
    predictor = ModularityPredictor(["effect_l2"], scale="ranks").fit(statistics, made)
    save(predictor, tmp_path / "p")
    before = sorted(path.name for path in measured.iterdir())
    capfd.readouterr()
    assert world.run(monkeypatch, "rank", measured, "--predictor", tmp_path / "p") == 2
    world.one_line(capfd, "knows effect_l2", "expected clean_score", "fit one on")
    assert sorted(path.name for path in measured.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("one",), "needs --out DIR"),
        (("one", "other"), "2 sources need --out DIR"),
        (("one", "alien", "--out", "p"), "share no statistic"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: tuple[str, ...],
    text: str,
    tables: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    statistics = synthetic.statistics(40, 0)
    labels = synthetic.labels(statistics, 0.1, 0).abs()
    alien = table(tmp_path / "alien.parquet", statistics[["direct_logit_entropy"]], labels)
    names = {"one": tables[0], "other": tables[1], "alien": alien, "p": tmp_path / "p"}
    assert world.run(monkeypatch, "fit", *(names.get(a, a) for a in arguments)) == 2
    world.one_line(capsys, text)
    assert not (tmp_path / "p").exists()


def test_labels_copied_from_another_setting_are_refused(
    measured: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting = measured.parent / "tiny.toml"
    run = shutil.copytree(measured, tmp_path / "run")
    other = tmp_path / "other"
    assert world.run(monkeypatch, "evaluate", setting, "--sample", 5, "--run", run) == 0
    changed = setting.with_name("changed.toml")
    changed.write_text(setting.read_text("utf-8").replace("alpha = 0.7", "alpha = 0.8"), "utf-8")
    assert world.run(monkeypatch, "evaluate", changed, "--sample", 5, "--run", other) == 0
    shutil.copy(other / "labels.parquet", run / "labels.parquet")
    for arguments in (("validate", run), ("fit", run)):
        capsys.readouterr()
        assert world.run(monkeypatch, *arguments) == 2
        assert "another setting" in capsys.readouterr().err
