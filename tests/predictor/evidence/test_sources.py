"""Validation of sources: everything is checked first, runs get their record, the result is typed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import quick
from cleansteer.core.errors import InputError
from cleansteer.core.records.validation import Examination, Validation
from cleansteer.predictor.evidence import validate_sources
from cleansteer.predictor.model import ABSOLUTE


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.cheapen(monkeypatch)


def table(n: int = 40) -> pd.DataFrame:
    """Labels that follow what no baseline sees."""
    generator = np.random.default_rng(0)
    names = ["final_act_freq", "final_act_mean", "decoder_norm", "crowding_max_abs_cos"]
    made = pd.DataFrame(generator.lognormal(size=(n, 4)), columns=names)
    signal = np.log(made["crowding_max_abs_cos"]) + 0.1 * generator.normal(size=n)
    made["stability_abs"] = 1 / (1 + np.exp(-signal))
    made["collateral_count_0.05"] = np.exp(1.0 - signal)
    made["effect_l2"] = np.exp(0.1 * generator.normal(size=n))
    return made.rename_axis("feature").reset_index()


def as_run(folder: Path, made: pd.DataFrame) -> Path:
    folder.mkdir()
    statistics = [name for name in made if name.startswith(("final_", "decoder_", "crowding_"))]
    made[["feature", *statistics]].to_parquet(folder / "features.parquet")
    made.drop(columns=statistics).assign(context_type="mixed").to_parquet(folder / "labels.parquet")
    return folder


def test_runs_and_tables_are_validated_together(tmp_path: Path) -> None:
    run, path = as_run(tmp_path / "run", table()), tmp_path / "mine.csv"
    table(45).to_csv(path, index=False)
    out, curve = tmp_path / "out.json", tmp_path / "curve.png"
    validation = validate_sources([run, path], repeats=1, shuffles=2, out=out, curve=curve)
    assert [one.name for one in validation.tables] == ["run", "mine"]
    assert Examination.read(run / "validation.json") == validation.tables[0]
    assert Validation.model_validate_json(out.read_text("utf-8")) == validation
    assert list(json.loads(out.read_text("utf-8"))) == [
        "tables",
        "overall",
        "transfer",
        "learning_curve",
    ]
    assert validation.transfer is not None
    assert len(validation.transfer.cells) == 2 * len(ABSOLUTE.targets)
    assert validation.learning_curve is not None
    points = pd.read_csv(tmp_path / "curve.csv").to_dict("records")
    assert points == [point.model_dump() for point in validation.learning_curve.points]
    assert list(validation.learning_curve.ours_with_all_minus_ridge_with_few) == ["run", "mine"]
    assert curve.stat().st_size > 0


def test_what_was_not_asked_for_is_absent(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "mine.csv", index=False)
    validation = validate_sources([tmp_path / "mine.csv"], repeats=1, shuffles=0)
    assert list(validation.model_dump()) == ["tables", "overall"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]
    assert validation.trusted == (validation.tables[0].trust.overall != "not trusted")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "--repeats 0: expected 1 or more; change it"),
        ({"shuffles": -1}, "--shuffles -1: expected 0 or more; change it"),
        ({"seed": -1}, "--seed -1: expected 0 or more; change it"),
        ({"curve": Path("c.pdf")}, r"--curve c.pdf: .* ends in .svg or .png; change it"),
        ({"out": Path("/")}, "--out / is a directory, expected a file's name; change it"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        validate_sources([tmp_path / "mine.csv"], **options)  # type: ignore[arg-type]


def test_nothing_is_computed_before_every_source_is_read(tmp_path: Path) -> None:
    run, path = as_run(tmp_path / "run", table()), tmp_path / "few.csv"
    table(29).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"few has 29 labelled features, expected at least 30"):
        validate_sources([run, path])
    without = table().drop(columns="stability_abs")
    without.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"few has no clean_score, .* leave --curve out"):
        validate_sources([run, path], curve=tmp_path / "curve.svg")
    assert not (run / "validation.json").exists()
