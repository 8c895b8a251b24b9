"""What ``cleansteer watch`` shows of a training."""

import json
from pathlib import Path

import pandas as pd
import pytest
import teaching
import world
from cleansteer.cli import watch as command
from cleansteer.core.tracked import COLUMNS, TRACKING


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = teaching.build(tmp_path_factory.mktemp("world"))
    (built / "names.csv").write_text("index,description\n3,[red] dates\n")
    with pytest.MonkeyPatch.context() as patch:
        more = ("--features", "0,3,5", "--log-steps", 1, "--descriptions", built / "names.csv")
        assert teaching.train(patch, built, built / "out", *teaching.SHORT, *more) == 0
    return built / "out"


def shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *more: object
) -> tuple[int, str, str]:
    capfd.readouterr()
    code = world.run(monkeypatch, "watch", folder, *more)
    return (code, *capfd.readouterr())


def test_a_finished_training_is_shown_once(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--once",)):
        code, out, err = shown(taught, monkeypatch, capfd, *more)
        assert (code, out) == (0, "")
        assert "step 6" in err
        (line,) = (line for line in err.splitlines() if "[red] dates" in line)
        last = (
            pd.read_parquet(taught / TRACKING).query("step == 6 and feature == 3")["value"].item()
        )
        assert line.split()[:2] == ["3", f"{last:+.4f}"]


def test_json_has_the_movers(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = shown(taught, monkeypatch, capfd, "--json", "--most", 2)
    found = json.loads(out)
    assert code == 0
    assert len(found) == 2
    assert abs(found[0]["scale_moved"]) >= abs(found[1]["scale_moved"])


def test_it_waits_until_the_training_ends(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / TRACKING).write_bytes((taught / TRACKING).read_bytes())
    record = json.loads((taught / "training.json").read_text("utf-8"))
    running = {name: value for name, value in record.items() if name != "metrics"}
    (tmp_path / "training.json").write_text(json.dumps(running), "utf-8")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            (tmp_path / "training.json").write_text(json.dumps(record), "utf-8")

    monkeypatch.setattr("time.sleep", sleep)
    code, _, err = shown(tmp_path, monkeypatch, capfd)
    assert (code, pauses) == (0, [command._PAUSE] * 3)
    assert "step 6" in err


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_what_is_no_training_is_refused(
    content: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / TRACKING).write_bytes(content)
    code, out, err = shown(tmp_path, monkeypatch, capfd)
    assert (code, out) == (2, "")
    assert TRACKING in err
    assert len(err.splitlines()) == 1


def test_columns_are_those_of_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "files.md").read_text("utf-8")
    section = text.split("### tracking.parquet")[1].split("\n#")[0]
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == [
        *COLUMNS
    ]


def test_in_a_narrow_terminal_names_give_way_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    row = dict.fromkeys(COLUMNS, "default") | {"step": 1, "value": -0.1234, "moved": -0.5678}
    name = "a description [red] that is much longer than any terminal is wide, " * 3
    rows = [row | {"feature": feature, "description": name} for feature in (12345, 6)]
    pd.DataFrame(rows).to_parquet(tmp_path / TRACKING)
    monkeypatch.setenv("COLUMNS", "50")
    _, _, err = shown(tmp_path, monkeypatch, capfd, "--once")
    lines = [line for line in err.splitlines() if "a description [red]" in line]
    assert [line.split()[:3] for line in lines] == [
        ["12345", "-0.1234", "-0.5678"],
        ["6", "-0.1234", "-0.5678"],
    ]
    assert all(len(line) <= 50 and line.rstrip().endswith("…") for line in lines)
