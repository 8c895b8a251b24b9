"""Columns read back as they were written."""

import numpy as np
import pytest
from cleansteer.report.columns import DIGITS, code_words, scale_numbers


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
