"""The comparison across settings: whose figures stand where, and that all formats say the same."""

import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import compared
import numpy as np
import pandas as pd
import pytest
import quick
from cleansteer.benchmarks.families import Table, compare, estimates, figures, formats, skill
from cleansteer.benchmarks.families.__main__ import recompute
from cleansteer.benchmarks.families.recomputed import recomputed
from cleansteer.benchmarks.families.table import NOTHING, OURS, PUBLISHED
from cleansteer.core.errors import InputError
from cleansteer.core.runs import RunDirectory
from cleansteer.core.tables import read_table, write_table
from cleansteer.predictor.targets import TARGETS
from cleansteer.study.catalogue import miniatures
from cleansteer.study.published import CROWDING, RESIDUALISED, TABLES, reliability_for

ROUNDED = 0.0005000001  # three decimals
SIX_DIGITS = 1e-5  # as they are kept
HEADING = ["Made by `cleansteer benchmark families`.", "Screened on a day."]
FOLDER = Path(__file__).parents[3] / "shared" / "data" / "published_tables"
RESULTS = Path(figures.__file__).parents[1] / "RESULTS.md"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.cheapen(monkeypatch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return compared.screened(tmp_path_factory.mktemp("compared"))


@pytest.fixture
def copies(runs: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]


def by_name(tables: Sequence[Table]) -> dict[str, pd.DataFrame]:
    return {table.name: table.frame for table in tables}


def rows(frame: pd.DataFrame) -> list[str]:
    """Rows as comparable text, in a fixed order."""
    return sorted(map(repr, frame.to_dict("records")))


def test_permuted_runs_permute_the_rows(runs: list[Path]) -> None:
    names = [run.name for run in runs]
    one, other = by_name(compare(runs)), by_name(compare(runs[::-1]))
    assert list(one) == list(other)
    for name, frame in one.items():
        assert rows(frame) == rows(other[name])
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


def test_all_formats_hold_the_same_numbers(runs: list[Path], tmp_path: Path) -> None:
    tables = compare(runs)
    paths = formats.write_tables(tables, HEADING, tmp_path)
    assert [path.name for path in paths] == [f"families.{e}" for e in ("md", "tex", "csv", "json")]
    csv = pd.read_csv(tmp_path / "families.csv", dtype=object, keep_default_na=False)
    data = json.loads((tmp_path / "families.json").read_text("utf-8"))
    markdown = (tmp_path / "families.md").read_text("utf-8")
    for table, plain in zip(tables, data["tables"], strict=True):
        expected = [list(row.values()) for row in table.frame.to_dict("records")]
        assert plain["columns"] == list(table.frame)
        written = csv[csv["table"] == table.name][list(table.frame)].to_numpy().tolist()
        shown = cells(markdown, table.title)
        assert len(plain["rows"]) == len(written) == len(shown) == len(expected)
        for row, from_json, from_csv, from_markdown in zip(
            expected, plain["rows"], written, shown, strict=True
        ):
            for name, value, text in zip(table.frame, row, from_csv, strict=True):
                stored = from_json[list(table.frame).index(name)]
                if pd.isna(value):
                    assert (stored, text) == (None, "")
                    assert from_markdown.get(str(name), NOTHING) == NOTHING
                elif isinstance(value, float):
                    assert stored == float(text) == value
                    near(from_markdown, str(name), value)
                else:
                    assert stored == value
                    assert text == str(value)


def test_latex_rows_have_as_many_cells_as_their_table(runs: list[Path]) -> None:
    tables = compare(runs)
    bodies = formats.latex(tables, HEADING).split("\\begin{longtable}{")[1:]
    for table, body in zip(tables, bodies, strict=True):
        columns = len(table.shown()[0])
        assert body.startswith("l" * columns + "}")
        rows = body.split("\\endlastfoot")[1].split("\\end{longtable}")[0].strip().splitlines()
        assert len(rows) == len(table.frame)
        for row in rows:
            assert row.endswith(r" \\")
            assert len(re.findall(r"(?<!\\)&", row)) == columns - 1


def cells(markdown: str, title: str) -> list[dict[str, str]]:
    """Rows of the table under a heading, by column."""
    section = markdown.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert len({len(row) for row in split}) == 1, "as many cells in every row"
    assert set(split[1]) == {"---"}
    return [dict(zip(split[0], row, strict=True)) for row in split[2:]]


def near(row: dict[str, str], name: str, value: float) -> None:
    """The cell of a column, or of its interval's end, holds the number as far as it is rounded."""
    stem = name.removesuffix("_low").removesuffix("_high")
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?", row[stem])]
    found = numbers[0 if stem == name else 1 if name.endswith("_low") else 2]
    if name.startswith("p_"):
        assert found == pytest.approx(value, rel=0.5)
    else:
        assert abs(found - value) <= ROUNDED


def test_published_rows_are_in_no_mean(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = by_name(compare(runs))
    worse = json.loads(json.dumps(recomputed()), parse_float=lambda text: float(text) - 1)
    monkeypatch.setattr(skill, "recomputed", lambda: worse)
    after = by_name(compare(runs))
    changed = 0
    for name, frame in before.items():
        ours = frame["origin"] == OURS
        assert rows(frame[ours]) == rows(after[name][ours])
        changed += rows(frame[~ours]) != rows(after[name][~ours])
    assert changed == 3, "skill, residualised, strongest"
    frame = before["skill"].set_index(["model", "predictors"])
    for key in frame.index.unique():
        group = frame.loc[[key]]
        ours = group[(group["origin"] == OURS) & (group["setting"] != figures.MEAN)]
        (mean,) = group[group["setting"] == figures.MEAN].to_dict("records")
        for target in TARGETS:
            assert mean[target] == math.fsum(ours[target]) / len(runs)


def test_one_run_has_no_mean(runs: list[Path]) -> None:
    frame = by_name(compare(runs[:1]))["skill"]
    assert figures.MEAN not in set(frame["setting"])


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
            for target in TARGETS:
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


def test_widths_of_one_dictionary_are_found(runs: list[Path]) -> None:
    for order in (runs, runs[::-1]):
        frame = by_name(compare(order))["widths"]
        assert set(zip(frame["narrow"], frame["wide"], strict=True)) == {("narrow", "wide")}
        difference = frame["in_wide"] - frame["in_narrow"]
        np.testing.assert_array_equal(frame["wide_minus_narrow"], difference)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("fingerprints", {"model": "another"}),
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

    monkeypatch.setattr(RunDirectory, "write_json", refuse)
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


def test_names_of_others_are_written_as_text() -> None:
    name = "a|b_1 & 50% <script>\n#{x} \\ ~^$ `*"
    table = Table("t", "T", "note_1", pd.DataFrame([{"setting": name, "origin": OURS, "x": 0.25}]))
    (row,) = cells(formats.markdown([table], HEADING).replace("\\|", "PIPE"), "T")
    assert "<" not in row["setting"]
    assert "aPIPEb" in row["setting"]
    latex = formats.latex([table], HEADING)
    (line,) = (line for line in latex.splitlines() if line.startswith("a\\textbar{}b"))
    cell = line.split(" & ours")[0]
    unescaped = re.sub(r"\\(text\w+\{\}|[&%$#_{}])", "", cell)
    assert not set(unescaped) & set("&%$#_{}~^\\<>|")
    optional = Table("t", "T", "", pd.DataFrame([{"setting": "[1cm]", "origin": OURS}]))
    assert "\n{}[1cm]" in formats.latex([optional], HEADING)
    assert latex.count("\\begin{longtable}") == latex.count("\\end{longtable}") == 1


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the replication's tables are not there: {FOLDER}")
@pytest.mark.parametrize("setting", TABLES)
def test_recomputed_figures_are_what_the_tables_give(setting: str) -> None:
    """But for the intervals, which are of fewer resamples here."""
    found, kept = recompute(FOLDER / f"{TABLES[setting]}.csv"), recomputed()[setting]
    values, expected = (
        {where: value for where, value in flat(figures) if where[-1] not in ("low", "high")}
        for figures in (found, kept)
    )
    assert values.keys() == expected.keys()
    for where, value in expected.items():
        wanted = (
            value
            if isinstance(value, str)
            else pytest.approx(value, rel=SIX_DIGITS, abs=SIX_DIGITS)
        )
        assert values[where] == wanted, where


def flat(found: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything in nested dictionaries, with the keys that lead to it."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from flat(value, (*where, key))
    else:
        yield where, found


def test_results_are_of_every_miniature() -> None:
    text = RESULTS.read_text("utf-8")
    assert "Made by `cleansteer benchmark families" in text
    assert re.search(r"Screened \d{4}-\d\d-\d\d", text)
    found = {row["setting"] for row in cells(text, "Verdicts")}
    assert found == set(miniatures())
