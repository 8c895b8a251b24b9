"""Columns read back as they were written."""

import numpy as np
import pandas as pd
import pytest
from cleansteer.predictor.model.targets import ABSOLUTE, RELATIVE, Scheme
from cleansteer.report.columns import DIGITS, code_words, feature_columns, scale_numbers


@pytest.mark.parametrize("size", [1e-9, 0.003, 1.0, 25.0, 1e12])
def test_numbers_come_back_with_six_digits_of_the_largest(size: float) -> None:
    values = size * np.random.default_rng(0).normal(size=500)
    values[[3, 70, 71]] = (np.nan, np.inf, -np.inf)
    packed = scale_numbers(values)
    assert all(value is None or isinstance(value, int) for value in packed.values)
    found = np.array(packed.values, dtype=np.float64) / 10.0**packed.decimals
    finite = np.isfinite(values)
    assert np.isnan(found[~finite]).all()
    largest = np.abs(values[finite]).max()
    np.testing.assert_allclose(
        found[finite], values[finite], atol=largest * 10.0 ** (1 - DIGITS), rtol=0
    )


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [0.0, -0.0]])
def test_columns_without_a_number_are_written_too(values: list[float]) -> None:
    packed = scale_numbers(np.array(values))
    assert len(packed.values) == len(values)
    assert not any(packed.values)


@pytest.mark.parametrize(
    "rows", [[], [[]], [["a"], []], [["a", "b", "a"], ["c"], [], ["b", "", "\u202e", "<b>"]]]
)
def test_words_come_back(rows: list[list[str]]) -> None:
    packed = code_words(rows)
    assert len(set(packed.words)) == len(packed.words)
    codes = np.array(packed.codes, dtype=np.int64).reshape(len(rows), packed.width)
    found = [[packed.words[code] for code in row if code >= 0] for row in codes]
    assert found == rows


@pytest.mark.parametrize("scheme", [ABSOLUTE, RELATIVE])
def test_both_axes_are_the_worse_percentile_and_one_alone_is_named(scheme: Scheme) -> None:
    """Of eight eligible features, two clean by stability alone, two by collateral alone; one is
    not eligible, and cleaner than all.
    """
    stability = [8, 1, 7, 2, 3, 4, 5, 6, 99]
    spread = [8, 1, 2, 7, 3, 4, 5, 6, -99]
    table = pd.DataFrame(
        {
            "feature": range(9),
            "eligible": [True] * 8 + [False],
            "predicted_stability_abs": stability,
            f"predicted_{scheme.collateral}": spread,
        }
    ).astype({"predicted_stability_abs": float, f"predicted_{scheme.collateral}": float})
    found = feature_columns(table, table[["feature"]], scheme)
    assert (found.collateral, found.targets) == (scheme.collateral, scheme.targets)
    both = found.numbers["both_axes"]
    values = [None if v is None else v / 10**both.decimals for v in both.values]
    cleaner = [9 - value for value in spread[:8]]
    expected = [min(s, c) / 8 for s, c in zip(stability[:8], cleaner, strict=True)]
    assert values[:8] == pytest.approx(expected)
    assert values[8] is None
    alone = found.words["alone"]
    codes = np.array(alone.codes).reshape(-1, alone.width)[:, 0]
    named = [None if code < 0 else alone.words[code] for code in codes]
    assert named == [
        "stability",
        "collateral",
        None,
        None,
        "collateral",
        None,
        None,
        "stability",
        None,
    ]


def test_without_predictions_of_both_axes_there_is_no_worse_one() -> None:
    table = pd.DataFrame({"feature": [0], "eligible": [True], "predicted_stability_abs": [0.5]})
    found = feature_columns(table, table[["feature"]], ABSOLUTE)
    assert "both_axes" not in found.numbers
    assert "alone" not in found.words
