"""Ours against the paper's ridge on what a replication measured on the real models."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cleansteer.predictor.evidence.scores import out_of_fold, spearman
from cleansteer.predictor.evidence.tables import LabelledTable, read_labelled
from cleansteer.predictor.model.baselines import paper_ridge
from cleansteer.predictor.model.blend import blended
from cleansteer.predictor.model.targets import ABSOLUTE, clean_score
from threadpoolctl import threadpool_limits

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "published_tables"
SETTINGS = ("gpt2_small", "pythia_70m_deduped", "gemma_2_2b", "llama_3_1_8b")
N_STATISTICS = 19
SEEDS = (0,)
LEAST_MEAN = 0.570  # 0.582 was measured; the ridge reaches 0.555
LEAST_LEAD = -0.03  # -0.012 was measured over three seeds; one moves a cell by about 0.01
NEEDS_TABLES = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the replication's tables are not there: {FOLDER}"
)


def tables() -> list[LabelledTable]:
    return [read_labelled(FOLDER / f"{setting}.csv") for setting in SETTINGS]


@NEEDS_TABLES
@pytest.mark.parametrize("place", range(4), ids=SETTINGS)
def test_they_are_read_as_they_were_published(place: int) -> None:
    table = tables()[place]
    assert table.name == SETTINGS[place]
    assert len(table.statistics) == len(table.labels) == 300
    left_out = [note for note in table.notes if note.endswith("so left out: decoder_norm")]
    assert table.statistics.shape[1] == N_STATISTICS - len(left_out)
    assert set(ABSOLUTE.targets) <= set(table.labels)
    count, effect = (table.labels[name] for name in ("collateral_count_0.05", "effect_l2"))
    np.testing.assert_allclose(table.labels["collateral_per_effect"], count / (effect + 1e-8))
    np.testing.assert_allclose(table.labels["clean_score"], clean_score(table.labels))


@NEEDS_TABLES
def test_ours_beats_the_papers_ridge_on_real_models() -> None:
    cells = list(product(tables(), ABSOLUTE.targets))
    assert len(cells) == 20

    def skill(job: tuple[LabelledTable, str, int]) -> tuple[float, float]:
        table, target, seed = job
        X = np.ascontiguousarray(table.statistics.to_numpy(dtype=np.float64))
        y = table.labels[target].to_numpy(dtype=np.float64)
        ours, ridge = (
            spearman(out_of_fold(method, X, y, seed), y)
            for method in (blended(seed, target), paper_ridge)
        )
        return ours, ridge

    jobs = [(*cell, seed) for cell in cells for seed in SEEDS]
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        scores = np.array(list(pool.map(skill, jobs))).reshape(20, len(SEEDS), 2)
    ours, ridge = scores.mean(axis=1).T
    assert ridge.mean() == pytest.approx(0.555, abs=0.002), "the ridge is the published one"
    assert ours.mean() >= LEAST_MEAN
    leads = dict(zip([(table.name, target) for table, target in cells], ours - ridge, strict=True))
    assert min(leads.values()) >= LEAST_LEAD, leads
