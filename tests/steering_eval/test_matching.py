"""Matched strength: the coefficient at which each feature moves predictions by the same KL."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from bench import Bench
from cleansteer.steering_eval import pairs
from cleansteer.steering_eval.evaluation import Evaluator
from cleansteer.steering_eval.matching import (
    LARGEST_PUSH,
    TOLERANCE,
    StrengthSearch,
    matched_values,
)

FEATURES = [3, 11, 40, 77]
TARGET = 0.05
CURVES = {
    "quadratic": lambda v: 0.3 * v**2,
    "weak": lambda v: 1e-4 * v**2,
    "strong": lambda v: 900.0 * v**2,
    "saturating": lambda v: 0.0505 * np.tanh(v) ** 2,
    "steep": lambda v: np.where(v < 0.7, 1e-7 * v, 1e-7 + 40 * (v - 0.7) ** 3),
    "not monotone": lambda v: 0.2 * v**2 * (1.3 + np.sin(9 * v)),
    "too weak": lambda v: 1e-9 * v**2,
    "bounded": lambda v: 0.049 * np.tanh(v) ** 2 * (1 - 1e-3),
    "nothing": lambda v: 0.0 * v,
}
UNREACHABLE = ("too weak", "bounded", "nothing")


def search(names: list[str], first: float = 1.0) -> tuple[StrengthSearch, int]:
    """Search along curves; the number of evaluations of a curve."""
    found = StrengthSearch(np.full(len(names), first), np.full(len(names), 100.0), TARGET)
    calls = 0
    while found.open.any():
        some = np.flatnonzero(found.open)
        found.tell(np.array([float(CURVES[names[i]](found.values[i])) for i in some]))
        calls += len(some)
    return found, calls


@pytest.mark.parametrize("first", [0.01, 1.0, 30.0])
def test_every_curve_that_crosses_the_target_is_solved(first: float) -> None:
    names = list(CURVES)
    found, _ = search(names, first)
    for i, name in enumerate(names):
        reached = float(CURVES[name](found.values[i]))
        assert found.reached[i] == (name not in UNREACHABLE), name
        if found.reached[i]:
            assert reached == pytest.approx(TARGET, rel=TOLERANCE), name
            assert found.divergences[i] == pytest.approx(reached)
        else:
            assert found.values[i] == pytest.approx(100.0) or reached < TARGET


def test_a_forecast_that_is_right_takes_one_step_and_a_quadratic_two() -> None:
    exact = float(matched_values(np.array([0.3]), TARGET, np.array([10.0]))[0])
    assert search(["quadratic"], exact)[1] == 1
    assert search(["quadratic"], exact / 2)[1] == 2


def test_features_are_searched_independently() -> None:
    together, _ = search(list(CURVES))
    for i, name in enumerate(CURVES):
        alone, _ = search([name])
        assert alone.values[0] == together.values[i]
        assert alone.reached[0] == together.reached[i]


def test_no_push_is_longer_than_the_limit() -> None:
    units = np.array([3.0, 5.0])
    assert matched_values(np.zeros(2), TARGET, units) == pytest.approx(LARGEST_PUSH * units)
    assert matched_values(np.array([TARGET, 4 * TARGET]), TARGET, units) == pytest.approx(
        [1.0, 0.5]
    )


def divergences(bench: Bench, values: np.ndarray, features: list[int] = FEATURES) -> np.ndarray:
    evaluator = Evaluator(bench.model, bench.primary, bench.downstream, bench.panel, bench.steering)
    return evaluator.divergences(bench.plan(features), bench.contexts, values)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_divergences_are_the_labels_kl(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(architecture, torch.float64)
    table = bench.evaluate(FEATURES, tmp_path)
    mixed = table[table["context_type"] == "mixed"].set_index("feature").loc[FEATURES]
    expected = mixed["kl_clean_steered"].to_numpy()
    value = np.full(len(FEATURES), bench.steering.alpha * bench.c)
    assert divergences(bench, value) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(pairs, "_MOST_QUERIES", 3)
    monkeypatch.setattr(pairs, "_PART_ELEMENTS", 1)
    assert divergences(bench, value) == pytest.approx(expected, rel=1e-9)


def test_given_values_are_steered_by(tmp_path: Path) -> None:
    bench = Bench("standard", torch.float64)
    added = bench.evaluate(FEATURES, tmp_path)
    matched = Bench("standard", torch.float64, mode="matched")
    evaluator = Evaluator(
        matched.model, matched.primary, matched.downstream, matched.panel, matched.steering
    )
    values = np.full(len(FEATURES), bench.steering.alpha * bench.c)
    table = evaluator.evaluate(
        matched.plan(FEATURES),
        matched.contexts,
        matched.activations,
        matched.features,
        values,
        tmp_path,
    )
    assert set(table["alpha"]) == {TARGET}
    pd.testing.assert_frame_equal(
        table.drop(columns=["mode", "alpha"]), added.drop(columns=["mode", "alpha"])
    )
