"""What is told of a run agrees with what the run holds."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import world
from cleansteer.core.settings import SaeSetting
from cleansteer.naming.neuronpedia import address_of
from cleansteer.report.comparison import ComparisonTable
from cleansteer.report.doses import dose_section
from cleansteer.report.page_tables import page_table
from cleansteer.report.records import Figure, PageTable
from cleansteer.report.run import Run
from cleansteer.report.story import Story, gather
from cleansteer.steering_eval.doses import DEFAULT_BUDGET


@pytest.fixture(scope="module")
def run(screened_world: Path) -> Run:
    return Run(screened_world / "run")


@pytest.fixture(scope="module")
def story(run: Run) -> Story:
    return gather(run)


def section(story: Story, key: str) -> PageTable:
    (found,) = (s for s in story.sections if s.key == key)
    return found.table


def test_an_axis_is_trusted_exactly_where_all_its_evidence_holds(story: Story) -> None:
    assert story.verdict is not None
    verdicts = set()
    for axis in story.verdict.axes:
        held = [evidence.holds for evidence in axis.evidence]
        assert len(held) == len(story.verdict.rules) == 3
        assert (axis.verdict == "trusted") == all(held)
        assert len(axis.reasons) == held.count(False)
        verdicts.add(axis.verdict)
    assert verdicts == {"trusted", "not trusted"}


def test_tables_and_charts_hold_the_same_figures(story: Story) -> None:
    for part in story.sections:
        assert len({len(row) for row in part.table.rows} | {len(part.table.columns)}) == 1
        listed = [cell for row in part.table.rows for cell in row if isinstance(cell, Figure)]
        for panel in part.panels:
            for series in panel.series:
                assert len(series.figures) == len(panel.rows)
                assert all(f is None or f in listed for f in series.figures)


def test_values_lie_within_their_intervals(story: Story) -> None:
    for part in story.sections:
        figures = [f for row in part.table.rows for f in row if isinstance(f, Figure)]
        with_interval = [f for f in figures if f.low is not None]
        assert with_interval
        for figure in with_interval:
            assert figure.low <= figure.value <= figure.high


def test_means_by_group_are_those_of_the_screening(run: Run, story: Story) -> None:
    means = run.screening.fresh_check.means
    measures = list(means["random"])
    table = section(story, "fresh")
    for row, measure in zip(table.rows, measures, strict=True):
        found = [cell.value for cell in row[1:4]]
        expected = [means[g][measure] for g in ("predicted_clean", "predicted_messy", "random")]
        np.testing.assert_allclose(found, expected)


def test_random_directions_are_those_of_the_screening(run: Run, story: Story) -> None:
    labels = run.screening.controls.random_directions.labels
    for row, pair in zip(section(story, "random").rows, labels.values(), strict=False):
        np.testing.assert_allclose([row[1].value, row[2].value], [pair.features, pair.random])


def test_doses_where_several_strengths_were_tried(
    screened_world: Path, tmp_path: Path, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "doses" not in {part.key for part in story.sections}
    path = tmp_path / "run"
    shutil.copytree(screened_world / "run", path)
    features = pd.read_parquet(path / "labels.parquet")["feature"].unique()[:5]
    listed = ",".join(map(str, features))
    arguments = ("--run", path, "--features", listed, "--alpha", "0.5,1,2")
    assert world.run(monkeypatch, "evaluate", screened_world / "tiny.toml", *arguments) == 0
    table = section(gather(Run(path)), "doses")
    labels = pd.read_parquet(path / "labels.parquet").query("context_type == 'mixed'")
    labels = labels[labels["feature"].isin(features)]
    assert [row[0] for row in table.rows] == ["0.5", "0.7", "1", "2"]  # 0.7 is the setting's own
    for row in table.rows:
        rows = labels[labels["alpha"] == float(row[0])]
        assert len(rows) == 5
        np.testing.assert_allclose(row[2].value, rows["effect_l2"].mean())
        assert row[-1] == (rows["kl_clean_steered"] <= DEFAULT_BUDGET).sum()
    recommended = pd.read_parquet(path / "doses.parquet")["recommended_alpha"]
    assert max(row[-1] for row in table.rows) >= recommended.notna().any()


def test_a_feature_steered_once_more_leaves_the_doses_as_they_were() -> None:
    rows = pd.DataFrame(
        [
            {"mode": "add", "context_type": "mixed", "alpha": a, "feature": f, "coefficient": a}
            for a in (1.0, 2.0, 4.0)
            for f in (3, 5, 7)
        ]
    ).assign(effect_l2=lambda table: table["alpha"] * table["feature"], kl_clean_steered=0.0)
    recommended = pd.DataFrame({"feature": [3, 5, 7], "recommended_alpha": 2.0, "kl_budget": 0.1})
    once = rows.head(1).assign(alpha=8.0)
    found = [
        dose_section(table, recommended, "mixed", 0)
        for table in (rows, pd.concat([rows, once], ignore_index=True))
    ]
    assert found[0] == found[1]
    assert [row[2].value for row in found[0].table.rows] == [5.0, 10.0, 20.0]
    assert dose_section(rows[rows["alpha"] == 1.0], None, "mixed", 0) is None
    assert dose_section(rows.head(0), None, "mixed", 0) is None


def test_neuronpedia_where_the_sae_is_listed_there() -> None:
    known = SaeSetting(release="gpt2-small-res-jb", id="blocks.8.hook_resid_pre")
    assert address_of(known) == "https://www.neuronpedia.org/gpt2-small/8-res-jb/"
    for other in (
        SaeSetting(path="somewhere"),
        SaeSetting(release="gpt2-small-res-jb", id="blocks.99.hook_resid_pre"),
        SaeSetting(release="no-such-release", id="blocks.8.hook_resid_pre"),
        SaeSetting(release="some/repository", id="layer_1"),
    ):
        assert address_of(other) is None


def test_tables_of_a_comparison_mark_what_is_published() -> None:
    frame = pd.DataFrame(
        {
            "setting": ["a", "b"],
            "skill": [0.5, 0.6],
            "skill_low": [0.4, np.nan],
            "skill_high": [0.6, np.nan],
            "n": [3, 4],
            "better": [True, None],
            "origin": ["ours", "published"],
        }
    )
    table = page_table(ComparisonTable("t", "T", "", frame))
    assert table.columns == ["setting", "skill", "n", "better"]
    assert table.rows[0] == ["a", Figure(0.5, 0.4, 0.6), 3.0, True]
    assert table.rows[1] == ["b", Figure(0.6), 4.0, None]
    assert table.published == [False, True]
    ours = ComparisonTable("t", "T", "", frame.drop(columns="origin"))
    assert page_table(ours).published == []
