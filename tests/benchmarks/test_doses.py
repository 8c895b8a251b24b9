"""The benchmark of dose forecasts: what its figures say."""

import numpy as np
import pandas as pd
import pytest
from cleansteer.benchmarks.doses import summarise, tell
from cleansteer.predictor.model.dosing import FORECAST, KL

ALPHAS = (0.5, 1.0, 2.0)
BUDGET = 0.1


def pairs(error: float, width: float) -> pd.DataFrame:
    """Two splits of 30 features whose KL is quadratic; forecasts are wrong by a factor."""
    rows = pd.DataFrame(
        [(s, f, a) for s in range(2) for f in range(30) for a in ALPHAS],
        columns=["split", "feature", "alpha"],
    )
    rows[f"true_{KL}"] = 0.01 * (1 + rows["feature"]) * rows["alpha"] ** 2
    rows["first_order_kl"] = 1.5 * rows[f"true_{KL}"]
    for label in FORECAST[1:]:
        rows[f"true_{label}"] = 0.1 + 0.01 * rows["feature"]
    for label in FORECAST:
        rows[label] = rows[f"true_{label}"] * (1 + error)
        rows[f"{label}_low"] = rows[label] * (1 - width)
        rows[f"{label}_high"] = rows[label] * (1 + width)
    rows["within_radius"] = rows["alpha"] < 2
    exact = np.sqrt(BUDGET / (0.01 * (1 + rows["feature"])))
    rows["recommended_alpha"] = exact.where(rows["feature"] % 2 == 0)
    rows["cautious_alpha"] = rows["recommended_alpha"] / 2
    return rows


def test_what_is_exact_has_no_error_and_is_covered() -> None:
    told = summarise(pairs(0.0, 0.1), BUDGET)
    assert told["error"] == pytest.approx(0.0)
    assert told["first_order"] == pytest.approx(0.5)
    assert told["abstained"] == pytest.approx(1 / 3)
    assert told["none"] == pytest.approx(0.5)
    assert all(told[f"covered_{label}"] == 1.0 for label in FORECAST)
    assert told["features"] == 30


def test_what_is_wrong_by_more_than_its_interval_is_not_covered() -> None:
    told = summarise(pairs(0.3, 0.1), BUDGET)
    assert told["error"] == pytest.approx(0.3)
    assert all(told[f"covered_{label}"] == 0.0 for label in FORECAST)


def test_kl_at_the_recommended_strength_is_read_between_those_measured() -> None:
    told = summarise(pairs(0.0, 0.1), BUDGET)
    assert told["recommended_alpha"] == pytest.approx(BUDGET)
    assert told["cautious_alpha"] < told["recommended_alpha"]
    text = tell({"one": told, "two": told}, BUDGET)
    assert text.count("| one |") == 3
