"""Transfer: ranks alone are compared, and no label of the ranked setting is seen."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.core.records.validation import Transfer
from cleansteer.predictor.evidence import pooling
from cleansteer.predictor.evidence.pooling import n_fits, pooled, shared
from cleansteer.predictor.evidence.tables import LabelledTable
from cleansteer.predictor.model import blend
from cleansteer.predictor.model.blend import Blend
from cleansteer.predictor.model.targets import RELATIVE
from cleansteer.predictor.model.transforms import rank_normalised

TARGET = "effect_l2"
COLUMNS = ["decoder_norm", "final_act_freq", "crowding_max_abs_cos"]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees and resamples, for time."""
    monkeypatch.setattr(blend, "STAGES", (3, 6, 10))
    monkeypatch.setattr(pooling, "RESAMPLES", 200)


def setting(name: str, seed: int, weights: tuple[float, ...], scale: float = 1.0) -> LabelledTable:
    """Sixty features in units of their own, whose label follows the ranks of the statistics."""
    statistics = synthetic.statistics(60, seed)[COLUMNS]
    generator = np.random.default_rng([seed, 3])
    label = rank_normalised(statistics).to_numpy() @ weights + 0.1 * generator.normal(size=60)
    labels = pd.DataFrame({TARGET: scale * np.exp(label)}, index=statistics.index)
    return LabelledTable(name, scale * statistics, labels)


def cells(found: Transfer) -> dict[str, float]:
    return {cell.table: cell.transferred.value for cell in found.cells}


def test_pooled_tables_stand_one_below_the_other_each_in_its_own_ranks() -> None:
    tables = [setting("a", 0, (1, 0, 0)), setting("b", 1, (1, 0, 0), scale=1000.0)]
    X, y = pooled(tables, COLUMNS[:2], TARGET)
    assert X.shape == (120, 2)
    for rows, table in ((slice(0, 60), tables[0]), (slice(60, 120), tables[1])):
        np.testing.assert_array_equal(X[rows], rank_normalised(table.statistics[COLUMNS[:2]]))
        assert abs(y[rows].mean()) < 1e-9
        assert list(np.argsort(y[rows])) == list(np.argsort(table.labels[TARGET]))


def test_settings_that_share_a_law_transfer_and_others_do_not() -> None:
    """Each in units of its own; where the law is turned round, so is the transferred ranking."""
    alike = [setting(f"t{seed}", seed, (2, -1, 1), scale=10.0**seed) for seed in range(3)]
    found = pooling.transfer(alike, 0)
    assert found.statistics == COLUMNS
    assert min(cells(found).values()) > 0.7
    for cell in found.cells:
        assert cell.target == TARGET
        assert cell.transferred.low > 0
        assert cell.within.value > 0.7
    turned = setting("turned", 7, (-2, 1, -1))
    assert cells(pooling.transfer([*alike[:2], turned], 0))["turned"] < -0.7


def test_what_has_nothing_to_do_with_the_others_is_not_ranked_by_them() -> None:
    """Labels are noise: over settings the transferred scores scatter around 0."""
    found = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        tables = [setting(f"t{i}", 10 * seed + i, (2, -1, 1)) for i in range(2)]
        tables[1].labels[TARGET] = generator.permutation(tables[1].labels[TARGET])
        found.append(cells(pooling.transfer(tables, seed))["t1"])
    assert abs(np.mean(found)) < 0.25  # 6 scores of standard error 0.13: five standard errors
    assert max(np.abs(found)) < 0.5


def test_no_label_of_a_setting_reaches_its_transferred_predictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = [setting(f"t{seed}", seed, (2, -1, 1)) for seed in range(2)]
    predicted: list[np.ndarray] = []

    class Spy(Blend):
        def predict_scores(self, X: np.ndarray) -> np.ndarray:
            predicted.append(super().predict_scores(X))
            return predicted[-1]

    monkeypatch.setattr(pooling, "Blend", Spy)
    monkeypatch.setattr(pooling, "in_parallel", in_order)
    pooling.transfer(tables, 0)
    before = predicted[:]
    predicted.clear()
    generator = np.random.default_rng(0)
    tables[1].labels[TARGET] = generator.permutation(tables[1].labels[TARGET]) * 9
    pooling.transfer(tables, 0)
    assert len(before) == len(predicted) == 2
    np.testing.assert_array_equal(predicted[1], before[1])
    assert not np.allclose(predicted[0], before[0]), "the other setting learns from them"


def in_order(work: Callable[[Any], Any], jobs: Iterable[Any]) -> list[Any]:
    return [work(job) for job in jobs]


def test_units_of_a_setting_do_not_matter() -> None:
    tables = [setting(f"t{seed}", seed, (2, -1, 1)) for seed in range(2)]
    other = LabelledTable("t1", tables[1].statistics * 1000, tables[1].labels ** 3)
    one, two = (pooling.transfer([tables[0], second], 0) for second in (tables[1], other))
    assert cells(one) == pytest.approx(cells(two))


def test_only_shared_statistics_and_targets_are_used() -> None:
    one, two = (setting(f"t{seed}", seed, (2, -1, 1)) for seed in range(2))
    two = LabelledTable(
        "t1",
        two.statistics[["final_act_freq", "decoder_norm"]].assign(token_act_std=1.0),
        two.labels.assign(stability_abs=0.5),
    )
    assert shared([one, two])[0] == ["decoder_norm", "final_act_freq"]
    ticks: list[int] = []
    found = pooling.transfer([one, two], 0, ticks.append)
    assert found.statistics == ["decoder_norm", "final_act_freq"]
    assert [(cell.table, cell.target) for cell in found.cells] == [
        ("t0", TARGET),
        ("t1", TARGET),
    ]
    assert sum(ticks) == n_fits([one, two]) == 2


def test_nothing_shared_is_refused() -> None:
    one, two = (setting(f"t{seed}", seed, (2, -1, 1)) for seed in range(2))
    strange = LabelledTable("strange", two.statistics.add_prefix("token_"), two.labels)
    with pytest.raises(InputError, match=r"t0 and strange share no statistic; give .*--columns"):
        pooling.transfer([one, strange], 0)


def test_scores_made_of_other_labels_are_not_one_label() -> None:
    """A clean score by absolute and one by relative collateral share a name alone."""
    plain = setting("a", 0, (2, -1, 1))
    labels = plain.labels.assign(clean_score=plain.labels[TARGET])
    one, other = (replace(plain, name=name, labels=labels) for name in "ab")
    assert "clean_score" in shared([one, other])[1]
    mixed = [one, replace(other, scheme=RELATIVE)]
    assert shared(mixed)[1] == [t for t in shared([one, other])[1] if t != "clean_score"]
