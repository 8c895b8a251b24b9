"""The benchmark of families: all formats say the same, and what is kept beside it is current."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import quick
from cleansteer import benchmarks
from cleansteer.benchmarks.families import formats
from cleansteer.benchmarks.families.__main__ import recompute
from cleansteer.core.published import TABLES
from cleansteer.report.comparison import ComparisonTable
from cleansteer.report.comparison.recomputed import read_recomputed
from cleansteer.report.comparison.table import NOTHING, OURS, PUBLISHED
from cleansteer.study.catalogue import miniatures
from pydantic import JsonValue

ROUNDED = 0.0005000001  # three decimals
SIX_DIGITS = 1e-5  # as they are kept
HEADING = ["Made by `cleansteer benchmark families`.", "Screened on a day."]
FOLDER = Path(__file__).parents[3] / "shared" / "data" / "published_tables"
RESULTS = Path(benchmarks.__file__).parent / "RESULTS.md"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.cheapen(monkeypatch)


@pytest.fixture
def tables() -> list[ComparisonTable]:
    """Tables of every kind of column: words, numbers, figures with intervals, p-values, gaps."""
    draw = np.random.default_rng(0)
    n = 7
    measured = pd.DataFrame(
        {
            "setting": [f"setting-{i}" for i in range(n)],
            "origin": [OURS, PUBLISHED, *[OURS] * (n - 2)],
            "skill": draw.normal(size=n),
            "skill_low": [np.nan, *draw.normal(size=n - 1)],
            "skill_high": [np.nan, *draw.normal(size=n - 1)],
            "p_holm": 10.0 ** draw.uniform(-30, 0, n),
            "n_labelled": draw.integers(1, 1000, n),
            "as_predicted": [True, False, None, *[True] * (n - 3)],
        }
    )
    gaps = pd.DataFrame(
        {
            "setting": ["a", "b"],
            "origin": [PUBLISHED, OURS],
            "l0": [np.nan, 25.5],
            "reasons": [None, "too few | too many"],
        }
    )
    return [
        ComparisonTable("measured", "Measured & published", "Of all.", measured),
        ComparisonTable("gaps", "Gaps", "What is missing.", gaps),
    ]


def test_all_formats_hold_the_same_numbers(tables: list[ComparisonTable], tmp_path: Path) -> None:
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


def test_latex_rows_have_as_many_cells_as_their_table(tables: list[ComparisonTable]) -> None:
    bodies = formats.to_latex(tables, HEADING).split("\\begin{longtable}{")[1:]
    for table, body in zip(tables, bodies, strict=True):
        columns = len(table.as_text()[0])
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


def test_names_of_others_are_written_as_text() -> None:
    name = "a|b_1 & 50% <script>\n#{x} \\ ~^$ `*"
    table = ComparisonTable(
        "t", "T", "note_1", pd.DataFrame([{"setting": name, "origin": OURS, "x": 0.25}])
    )
    (row,) = cells(formats.to_markdown([table], HEADING).replace("\\|", "PIPE"), "T")
    assert "<" not in row["setting"]
    assert "aPIPEb" in row["setting"]
    latex = formats.to_latex([table], HEADING)
    (line,) = (line for line in latex.splitlines() if line.startswith("a\\textbar{}b"))
    cell = line.split(" & ours")[0]
    unescaped = re.sub(r"\\(text\w+\{\}|[&%$#_{}])", "", cell)
    assert not set(unescaped) & set("&%$#_{}~^\\<>|")
    optional = ComparisonTable("t", "T", "", pd.DataFrame([{"setting": "[1cm]", "origin": OURS}]))
    assert "\n{}[1cm]" in formats.to_latex([optional], HEADING)
    assert latex.count("\\begin{longtable}") == latex.count("\\end{longtable}") == 1


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the replication's tables are not there: {FOLDER}")
@pytest.mark.parametrize("setting", TABLES)
def test_recomputed_figures_are_what_the_tables_give(setting: str) -> None:
    """But for the intervals, which are of fewer resamples here."""
    found = recompute(FOLDER / f"{TABLES[setting]}.csv")
    kept = read_recomputed()[setting].model_dump(mode="json")
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


def flat(
    found: JsonValue, where: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
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
