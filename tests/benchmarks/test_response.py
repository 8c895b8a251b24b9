"""The benchmark of linear response: what its tables hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import quick
from cleansteer.benchmarks.response import (
    TABLES,
    TYPES,
    Subject,
    compare,
    few_labels,
    tell,
    transferred,
)
from cleansteer.core.runs import RunDirectory
from cleansteer.predictor.evidence import LabelledTable
from cleansteer.predictor.model import ABSOLUTE
from cleansteer.study.entry import open_study
from scipy.stats import spearmanr

N_CONTEXTS = 12


@pytest.fixture(scope="module")
def tables(screened_world: Path) -> dict[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        quick.cheapen(patch)
        return compare([Subject.of(screened_world / "run", N_CONTEXTS)])


def test_label_free_is_the_correlation_with_the_runs_labels(
    tables: dict[str, pd.DataFrame], screened_world: Path, tmp_path: Path
) -> None:
    free = tables["label-free"]
    assert len(free) == (len(ABSOLUTE.targets) + 1) * len(TYPES)
    setting = RunDirectory.existing(screened_world / "run").setting()
    asked = setting.replace("steering", response=True, response_contexts=N_CONTEXTS)
    features = open_study(asked, run=tmp_path / "run", progress=False).features
    labels = RunDirectory.existing(screened_world / "run").table("labels.parquet")
    for name in TYPES:
        own = labels[labels["context_type"] == name].set_index("feature")
        x = features.set_index("feature").loc[own.index, "response_effect_l2"]
        (row,) = free[(free["contexts"] == name) & (free["target"] == "effect_l2")].to_dict(
            "records"
        )
        assert row["value"] == pytest.approx(spearmanr(x, own["effect_l2"]).statistic)
        assert row["low"] <= row["value"] <= row["high"]


def test_both_fits_are_scored_and_told(
    tables: dict[str, pd.DataFrame],
) -> None:
    assert set(tables) == {*TABLES} - {"transfer"}, "there is no other run"
    skills, few = tables["fitted"], tables["few"]
    assert skills["target"].tolist() == list(ABSOLUTE.targets)
    lead = skills["with_value"] - skills["without_value"]
    assert skills["lead_value"].to_numpy() == pytest.approx(lead.to_numpy())
    assert (skills["lead_low"] <= skills["lead_value"]).all()
    assert few["lead_value"].item() == pytest.approx(
        (few["with_value"] - few["without_value"]).item()
    )
    text = tell(tables)
    n_labels = len(ABSOLUTE.targets)
    assert text.count("| tiny |") == 1 + (n_labels + 1) + n_labels + 1


def test_few_labels_are_fitted_beside_all_of_them() -> None:
    """What only linear response says is found with few labels, and not without it by any number."""
    generator = np.random.default_rng(0)
    statistics = pd.DataFrame(
        {name: generator.normal(size=80) for name in ("decoder_norm", "response_stability_abs")}
    )
    labels = pd.DataFrame({"clean_score": statistics["response_stability_abs"]})
    (row,) = few_labels(statistics, labels, 0, ABSOLUTE, few=20, repeats=1).to_dict("records")
    assert (row["few"], row["all"]) == (20, 64)
    assert row["with_value"] > 0.9 > 0.5 > row["without_value"]
    assert row["lead_low"] > 0


def test_a_predictor_of_other_settings_sees_no_label_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What linear response says of the others' labels holds for these; the paper's statistic does not."""
    quick.cheapen(monkeypatch)
    generator = np.random.default_rng(0)
    tables = []
    for place in range(3):
        statistics = pd.DataFrame(
            {name: generator.normal(size=60) for name in ("decoder_norm", "response_effect_l2")}
        )
        score = statistics["response_effect_l2"] * 10**place
        tables.append(LabelledTable(f"t{place}", statistics, pd.DataFrame({"clean_score": score})))
    found = transferred(tables, 0)
    assert found["setting"].tolist() == ["t0", "t1", "t2"]
    assert (found["with_value"] > 0.9).all()
    assert (found["without_value"].abs() < 0.5).all()
    turned = [tables[0], tables[1], replace(tables[2], labels=-tables[2].labels)]
    assert transferred(turned, 0)["with_value"].iloc[2] < -0.9
    assert "| t1 |" in tell({"transfer": found})
