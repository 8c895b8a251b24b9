"""``cleansteer benchmark families``: from settings to tables, and on from where it was."""

import json
import shutil
from pathlib import Path

import compared
import pandas as pd
import pytest
import quick
import world
from cleansteer.study import catalogue

FILES = ["families.csv", "families.html", "families.json", "families.md", "families.tex"]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.cheapen(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, their runs and tables, from nothing."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        quick.cheapen(patch)
        settings = compared.settings(folder)
        assert world.run(patch, *command(folder, folder / "tables", *settings)) == 0
    return folder


def command(folder: Path, out: Path, *sources: object) -> tuple[object, ...]:
    return ("benchmark", "families", *sources, "--runs", folder / "runs", "--out", out)


def same(one: Path, other: Path) -> None:
    """The tables are the same to the last digit."""
    assert (one / "families.csv").read_bytes() == (other / "families.csv").read_bytes()


def test_it_writes_its_files_and_finished_runs(built: Path) -> None:
    assert sorted(path.name for path in (built / "tables").iterdir()) == FILES
    for name in ("narrow", "wide", "other"):
        assert (built / "runs" / name / "screening.json").is_file()
    table = pd.read_csv(built / "tables" / "families.csv")
    assert set(table["table"]) >= {"verdicts", "skill", "strongest", "fresh", "widths"}
    assert table["origin"].notna().all()


def test_finished_runs_are_not_screened_again(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [path for path in (built / "runs").rglob("*") if path.suffix in (".json", ".parquet")]
    before = {path: path.read_bytes() for path in kept}
    settings = [built / "narrow.toml", built / "wide.toml", built / "other" / "other.toml"]
    assert world.run(monkeypatch, *command(built, tmp_path / "a", *settings)) == 0
    same(built / "tables", tmp_path / "a")
    runs = [built / "runs" / name for name in ("narrow", "wide", "other")]
    assert world.run(monkeypatch, *command(tmp_path, tmp_path / "b", *runs)) == 0
    same(built / "tables", tmp_path / "b")
    assert before == {path: path.read_bytes() for path in kept}


def test_an_interrupted_setting_goes_on_to_the_same_tables(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built / "runs", tmp_path / "runs")
    for lost in ("screening.json", "ranking.parquet", "fresh_labels.parquet", "estimates.json"):
        (tmp_path / "runs" / "wide" / lost).unlink()
    settings = [built / "narrow.toml", built / "wide.toml", built / "other" / "other.toml"]
    assert world.run(monkeypatch, *command(tmp_path, tmp_path / "tables", *settings)) == 0
    same(built / "tables", tmp_path / "tables")


def test_json_goes_to_stdout_alone(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    run = built / "runs" / "narrow"
    assert world.run(monkeypatch, *command(tmp_path, tmp_path / "out", run), "--json") == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown == json.loads((tmp_path / "out" / "families.json").read_text("utf-8"))
    assert shown["made"][0].startswith("Made by `cleansteer benchmark families")


def test_people_read_verdicts_and_files_on_stderr(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    run = built / "runs" / "wide"
    verdict = json.loads((run / "screening.json").read_text("utf-8"))["trust"]["overall"]
    assert world.run(monkeypatch, *command(tmp_path, tmp_path / "out", run)) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert any(line.startswith("wide") and verdict in line for line in err.splitlines())
    for name in FILES:
        assert name in "".join(err.split())


def test_without_settings_it_takes_all_miniatures(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = {f"mini-{name}": built / f"{name}.toml" for name in ("narrow", "wide")}
    monkeypatch.setattr(catalogue, "bundled", lambda: bundled | {"gpt2": built / "none.toml"})
    assert world.run(monkeypatch, *command(built, tmp_path)) == 0
    table = pd.read_csv(tmp_path / "families.csv").query("table == 'verdicts'")
    assert table["setting"].tolist() == ["narrow", "wide"]


@pytest.mark.parametrize(
    ("sources", "parts"),
    [
        (["no-such-setting"], ["unknown setting 'no-such-setting'"]),
        (["{runs}/narrow", "{built}/narrow.toml"], ["given twice"]),
        (["{built}/narrow.toml", "{copy}"], ["is not finished"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    built: Path,
    tmp_path: Path,
    sources: list[str],
    parts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    copy = Path(shutil.copytree(built / "runs" / "other", tmp_path / "copy"))
    (copy / "screening.json").unlink()
    places = {"runs": built / "runs", "built": built, "copy": copy}
    given = [source.format(**places) for source in sources]
    capfd.readouterr()
    assert world.run(monkeypatch, *command(built, tmp_path / "out", *given)) == 2
    world.one_line(capfd, *parts)
    assert not (tmp_path / "out").exists()


def test_out_that_leads_through_a_file_is_refused_before_anything_is_screened(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    capfd.readouterr()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        arguments = command(tmp_path, out, built / "narrow.toml")
        assert world.run(monkeypatch, *arguments) == 2
        world.one_line(capfd, str(tmp_path / "file"), "which is a file")
    assert not (tmp_path / "runs").exists()
