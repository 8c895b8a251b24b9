"""``cleansteer report``, and the report that a screening leaves."""

import json
from pathlib import Path

import pytest
import reported
import world


def test_a_run_becomes_a_page(
    screened_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new" / "page.html"
    capfd.readouterr()
    assert world.run(monkeypatch, "report", screened_world / "run", "--out", out) == 0
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "page.html" in shown.err
    assert reported.data_of(out)["about"]["runs"] == ["tiny"]
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_json_goes_to_stdout_alone(
    screened_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "page.html"
    capfd.readouterr()
    assert world.run(monkeypatch, "report", screened_world / "run", "--out", out, "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told == {"report": str(out), "bytes": out.stat().st_size}


def test_a_screening_leaves_its_report(screened_world: Path) -> None:
    found = reported.data_of(screened_world / "run" / "report.html")
    screening = json.loads((screened_world / "run" / "screening.json").read_text("utf-8"))
    assert found["run-0"]["verdict"]["overall"] == screening["trust"]["overall"]


def test_descriptions_are_carried(
    screened_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out = tmp_path / "descriptions.csv", tmp_path / "page.html"
    given.write_text("index,description\n7,seven\n", "utf-8")
    arguments = ("report", screened_world / "run", "--out", out, "--descriptions", given)
    assert world.run(monkeypatch, *arguments) == 0
    features = reported.data_of(out)["run-0"]["features"]
    described = dict(zip(features["feature"], features["descriptions"], strict=True))
    assert described[7] == "seven"
    assert sum(map(bool, described.values())) == 1


def test_the_old_name_of_the_option_works_and_says_the_new_one(
    screened_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given, out = tmp_path / "descriptions.csv", tmp_path / "page.html"
    given.write_text("index,description\n7,seven\n", "utf-8")
    arguments = ("report", screened_world / "run", "--out", out)
    assert world.run(monkeypatch, *arguments, "--descriptions", given) == 0
    by_new_name = reported.data_of(out)["run-0"]
    capfd.readouterr()
    assert world.run(monkeypatch, *arguments, "--labels", given) == 0
    warning = capfd.readouterr().err.splitlines()[0]
    assert "--labels" in warning
    assert "--descriptions" in warning
    assert reported.data_of(out)["run-0"] == by_new_name
    assert world.run(monkeypatch, "report", "--help") == 0
    shown = capfd.readouterr().out
    assert "--descriptions" in shown
    assert "--labels" not in shown


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("nowhere",), ("nowhere holds no run", "cleansteer screen")),
        (("texts.txt",), ("texts.txt holds no run",)),
        ((".",), ("holds no run",)),
        (("run", "--out", "."), ("--out . is a directory",)),
        (("run", "--out", "texts.txt/page.html"), ("is a file",)),
        (("run", "--descriptions", "nowhere.csv"), ("--descriptions nowhere.csv does not exist",)),
        (("run", "--descriptions", "a.csv", "--labels", "b.csv"), ("old name of --descriptions",)),
        (("run", "run", "--descriptions", "texts.txt"), ("one SAE", "2 runs")),
    ],
)
def test_bad_input_is_told_in_a_line(
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
    screened_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").symlink_to(screened_world / "run")
    (tmp_path / "texts.txt").write_text("texts", "utf-8")
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    assert world.run(monkeypatch, "report", *arguments) == 2
    world.one_line(capfd, *parts)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "texts.txt"}


def test_of_several_runs_those_that_are_screened_are_compared(
    screened_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, half = (reported.copied(screened_world / "run", tmp_path / n) for n in ("done", "half"))
    (half / "screening.json").unlink()
    out = tmp_path / "page.html"
    assert world.run(monkeypatch, "report", done, half, "--out", out) == 0
    comparison = reported.data_of(out)["about"]["comparison"]
    assert [row[1] == "not screened" for row in comparison["verdicts"]["rows"]] == [False, True]
    (table,) = (t for t in comparison["tables"] if t["name"] == "verdicts")
    assert [row[0] for row in table["table"]["rows"]] == ["tiny"]
