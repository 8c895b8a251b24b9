"""The comparison of several runs: whose figures stand where, and which runs are refused."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import compared
import numpy as np
import pandas as pd
import pytest
import quick
import world
from cleansteer.core.errors import InputError
from cleansteer.core.published import CROWDING, RESIDUALISED, TABLES, reliability_for
from cleansteer.core.tables import read_table, write_table
from cleansteer.predictor.model.targets import ABSOLUTE, RELATIVE
from cleansteer.report.comparison import ComparisonTable, compare, estimates, rows, skill
from cleansteer.report.comparison.recomputed import read_recomputed
from cleansteer.report.comparison.table import OURS, PUBLISHED


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.cheapen(monkeypatch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return compared.screened(tmp_path_factory.mktemp("compared"))


@pytest.fixture
def copies(runs: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]


def by_name(tables: Sequence[ComparisonTable]) -> dict[str, pd.DataFrame]:
    return {table.name: table.frame for table in tables}


def texts(frame: pd.DataFrame) -> list[str]:
    """Rows as comparable text, in a fixed order."""
    return sorted(map(repr, frame.to_dict("records")))


def test_permuted_runs_permute_the_rows(runs: list[Path]) -> None:
    names = [run.name for run in runs]
    one, other = by_name(compare(runs)), by_name(compare(runs[::-1]))
    assert list(one) == list(other)
    for name, frame in one.items():
        assert texts(frame) == texts(other[name])
        if "setting" in frame:
            ours = frame[frame["setting"].isin(names)]["setting"].tolist()
            turned = other[name][other[name]["setting"].isin(names)]["setting"].tolist()
            assert ours == names * (len(ours) // len(names))
            assert turned == names[::-1] * (len(ours) // len(names))


def test_every_table_says_whose_figures_it_holds(runs: list[Path]) -> None:
    for name, frame in by_name(compare(runs)).items():
        assert set(frame["origin"]) <= {OURS, PUBLISHED}
        if "setting" in frame:
            published = frame["setting"].isin(TABLES)
            assert (published == (frame["origin"] == PUBLISHED)).all(), name


def test_published_rows_are_in_no_mean(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = by_name(compare(runs))
    worse = {
        setting: type(found).model_validate(
            json.loads(found.to_json(), parse_float=lambda text: float(text) - 1)
        )
        for setting, found in read_recomputed().items()
    }
    monkeypatch.setattr(skill, "read_recomputed", lambda: worse)
    after = by_name(compare(runs))
    changed = 0
    for name, frame in before.items():
        ours = frame["origin"] == OURS
        assert texts(frame[ours]) == texts(after[name][ours])
        changed += texts(frame[~ours]) != texts(after[name][~ours])
    assert changed == 3, "skill, residualised, strongest"
    frame = before["skill"].set_index(["model", "predictors"])
    for key in frame.index.unique():
        group = frame.loc[[key]]
        ours = group[(group["origin"] == OURS) & (group["setting"] != rows.MEAN)]
        (mean,) = group[group["setting"] == rows.MEAN].to_dict("records")
        for target in ABSOLUTE.targets:
            assert mean[target] == math.fsum(ours[target]) / len(runs)


def test_one_run_has_no_mean(runs: list[Path]) -> None:
    frame = by_name(compare(runs[:1]))["skill"]
    assert rows.MEAN not in set(frame["setting"])


def test_what_a_screening_says_is_said_unchanged(runs: list[Path]) -> None:
    frames = by_name(compare(runs))
    for run in runs:
        screening = json.loads((run / "screening.json").read_text("utf-8"))
        scores = {t: found["scores"] for t, found in screening["skill"].items()}
        of_run = frames["skill"][frames["skill"]["setting"] == run.name]
        table = of_run.set_index(["model", "predictors"])
        for (model, predictors), method in {
            ("cleansteer", "full_all"): "ours",
            ("ridge", "full_all"): "ridge",
            ("boosting", "full_all"): "boosting",
            ("ridge", "freq_only"): "freq_only",
            ("ridge", "activation_magnitude_only"): "activation_magnitude_only",
        }.items():
            for target in ABSOLUTE.targets:
                assert table.loc[(model, predictors), target] == scores[target][method]["value"]
        verdict = frames["verdicts"].set_index("setting").loc[run.name]
        assert verdict["verdict"] == screening["trust"]["overall"]
        for axis, by_axis in screening["trust"]["axes"].items():
            assert verdict[axis] == by_axis["verdict"]
            assert all(reason in (verdict["reasons"] or "") for reason in by_axis["reasons"])


def test_reported_figures_are_those_of_the_replication(runs: list[Path]) -> None:
    frames = by_name(compare(runs))
    for place, (setting, table) in enumerate(TABLES.items()):

        def of(name: str, setting: str = setting) -> pd.DataFrame:
            frame = frames[name]
            return frame[(frame["setting"] == setting) & (frame["origin"] == PUBLISHED)]

        (row,) = of("reliability").to_dict("records")
        assert {name: row[name] for name in reliability_for(table)} == reliability_for(table)
        (row,) = of("crowding").to_dict("records")
        assert (row["features"], row["random"]) == CROWDING[table]
        reported = of("residualised_replication").query("nuisance == 'all rows'")
        assert set(reported["predictors"]) == set(RESIDUALISED)
        for found in reported.to_dict("records"):
            for target, values in RESIDUALISED[found["predictors"]].items():
                assert found[target] == values[place]


def test_rows_say_what_was_seen_and_papers_labels_stand_beside_relative_ones(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run as the others, and one with relative collateral whose predictor sees linear response."""
    setting = runs[2].parents[1] / "other" / "other.toml"
    text = (
        setting.read_text("utf-8").replace('"absolute"', '"relative"').replace('"other"', '"new"')
    )
    relative = setting.with_name("new.toml")
    asked = "response = true\nresponse_contexts = 12"
    relative.write_text(text.replace("response = false", asked), "utf-8")
    assert world.run(monkeypatch, "screen", relative, "--run", tmp_path / "new") == 0
    frames = by_name(compare([runs[0], tmp_path / "new"]))
    ours = frames["skill"].query("origin == 'ours' and setting != 'mean'")
    seen = ours[ours["model"] == "cleansteer"].set_index("setting")["predictors"].to_dict()
    assert seen == {"narrow": "full_all", "new": "full_with_response"}
    assert set(ours[ours["model"] == "boosting"]["predictors"]) == {"full_all"}
    with_response = ours["predictors"].isin(["response_only", "full_with_response"])
    assert set(ours[with_response]["setting"]) == {"new"}
    ridge = ours[(ours["model"] == "ridge") & (ours["predictors"] == "full_all")]
    ridge = ridge.set_index("setting")
    assert ridge.loc["new", list(ABSOLUTE.targets)].notna().all()
    assert ridge[RELATIVE.collateral].notna().to_dict() == {"narrow": False, "new": True}
    kinds = frames["settings"].set_index("setting")["collateral"]
    assert kinds[["narrow", "new", "gpt2-small"]].tolist() == ["absolute", "relative", "absolute"]


def test_widths_of_one_dictionary_are_found(runs: list[Path]) -> None:
    for order in (runs, runs[::-1]):
        frame = by_name(compare(order))["widths"]
        assert set(zip(frame["narrow"], frame["wide"], strict=True)) == {("narrow", "wide")}
        difference = frame["in_wide"] - frame["in_narrow"]
        np.testing.assert_array_equal(frame["wide_minus_narrow"], difference)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("fingerprints", {"model": "another", "sae": "one", "downstream_sae": "two"}),
        ("hooks", {"sae": "blocks.2.hook_resid_pre", "downstream_sae": "blocks.2.hook_resid_pre"}),
        ("centred", {"sae": True, "downstream_sae": True}),
        ("architectures", {"sae": "topk", "downstream_sae": "standard"}),
    ],
)
def test_widths_are_of_the_same_model_places_and_kind(
    copies: list[Path], entry: str, value: dict[str, Any]
) -> None:
    compared.edit(copies[1] / "manifest.json", **{entry: value})
    assert "widths" not in by_name(compare(copies))


def test_without_a_second_width_there_is_no_such_table(runs: list[Path]) -> None:
    assert "widths" not in by_name(compare([runs[0], runs[2]]))


def test_estimates_are_kept_as_long_as_the_tables_are_the_same(
    copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = by_name(compare(copies))

    def refuse(*asked: object) -> None:
        raise AssertionError("estimated anew")

    monkeypatch.setattr(estimates, "estimate", refuse)
    for name, frame in by_name(compare(copies)).items():
        pd.testing.assert_frame_equal(frame, first[name], check_exact=True)
    labels = pd.read_parquet(copies[0] / "labels.parquet")
    labels.assign(stability_abs=0.5).to_parquet(copies[0] / "labels.parquet")
    with pytest.raises(AssertionError, match="estimated anew"):
        compare(copies)


def test_estimates_that_are_damaged_are_made_anew(copies: list[Path]) -> None:
    first, kept = by_name(compare(copies)), copies[0] / "estimates.json"
    kept.write_text("{", "utf-8")
    for name, frame in by_name(compare(copies)).items():
        pd.testing.assert_frame_equal(frame, first[name], check_exact=True)
    assert json.loads(kept.read_text("utf-8"))["estimates"]


def test_a_run_that_cannot_be_written_to_is_compared(
    copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*asked: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(estimates, "write_text", refuse)
    for run in copies:
        (run / "estimates.json").unlink(missing_ok=True)
    assert set(by_name(compare(copies))) >= {"verdicts", "skill", "crowding"}
    assert not (copies[0] / "estimates.json").exists()


@pytest.mark.parametrize(
    ("file", "entry", "parts"),
    [
        ("manifest.json", "cleansteer-run/99", ["has format 'cleansteer-run/99'", "screen anew"]),
        ("screening.json", "other/1", ["has format 'other/1'", "cleansteer-screening/1"]),
    ],
)
def test_other_formats_are_refused(
    copies: list[Path], file: str, entry: str, parts: list[str]
) -> None:
    compared.edit(copies[1] / file, format=entry)
    refused(copies, str(copies[1]), *parts)


def test_unfinished_runs_are_refused(copies: list[Path]) -> None:
    (copies[1] / "screening.json").unlink()
    refused(copies, str(copies[1]), "is not finished", f"--run {copies[1]}")


@pytest.mark.parametrize("lost", ["features", "labels", "random_directions"])
def test_runs_that_lack_a_table_are_refused(copies: list[Path], lost: str) -> None:
    (copies[1] / f"{lost}.parquet").unlink()
    refused(copies, f"{copies[1] / lost}.parquet does not exist")


def test_features_that_were_steered_later_change_nothing(copies: list[Path]) -> None:
    before = compare(copies[:1])
    path = copies[0] / "labels.parquet"
    labels, ranking = read_table(path), read_table(copies[0] / "ranking.parquet")
    later = ranking.loc[~ranking["measured"], "feature"].head(2)
    added = [labels[labels["feature"] == labels["feature"][0]].assign(feature=f) for f in later]
    whole = pd.concat([labels, *added])
    whole.attrs = labels.attrs
    write_table(path, whole)
    for table, same in zip(compare(copies[:1]), before, strict=True):
        pd.testing.assert_frame_equal(table.frame, same.frame)


def test_screenings_of_other_labels_or_settings_are_refused(copies: list[Path]) -> None:
    screening = copies[0] / "screening.json"
    shutil.copy(copies[2] / "screening.json", copies[1] / "screening.json")
    refused(copies[1:2], "of another setting")
    compared.edit(screening, n_labelled=compared.LABELLED - 1)
    refused(copies[:1], f"{compared.LABELLED - 1} labelled features", "screen it again")


def test_runs_given_twice_or_missing_are_refused(runs: list[Path], tmp_path: Path) -> None:
    refused([runs[0], runs[0] / "."], "given twice")
    refused([tmp_path], "holds no run")


def refused(runs: Sequence[Path], *parts: str) -> None:
    with pytest.raises(InputError) as error:
        compare(runs)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_runs_of_one_name_are_told_apart(runs: list[Path], copies: list[Path]) -> None:
    frame = by_name(compare([runs[0], copies[0], runs[1]]))["settings"]
    names = frame[frame["origin"] == OURS]["setting"].tolist()
    assert names == [str(runs[0]), str(copies[0]), "wide"]
