"""What is refused, and what it says of it: one line with the value, what was expected, a remedy."""

import numpy as np
import pandas as pd
import pytest
from cleansteer.core.errors import InputError
from cleansteer.predictor.model.checks import aligned, distinct_features, finite_values


def table(n: int = 6) -> pd.DataFrame:
    values = np.arange(3.0 * n).reshape(n, 3)
    return pd.DataFrame(values, index=10 * np.arange(1, n + 1), columns=["a", "b", "c"])


def refused(*arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        finite_values(*arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_come_in_the_order_of_the_columns_asked_for() -> None:
    found = finite_values(table().assign(d="text"), ["c", "a"], "statistics")
    assert np.array_equal(found, table()[["c", "a"]])
    assert found.dtype == np.float64
    assert found.flags.c_contiguous


def test_whole_numbers_and_truth_values_are_numbers() -> None:
    mixed = pd.DataFrame({"a": [1, 2], "b": [True, False], "c": np.float32([0.5, 1])})
    assert np.array_equal(finite_values(mixed, ["a", "b", "c"], "x"), [[1, 1, 0.5], [2, 0, 1]])


def test_missing_columns_are_all_named() -> None:
    message = refused(table(), ["x", "a", "y"], "statistics")
    assert message.startswith("statistics lack 'x', 'y', expected x, a, y; ")


def test_text_is_named() -> None:
    message = refused(table().assign(b="many"), ["a", "b"], "labels")
    assert message.startswith("labels: column 'b' holds 'many' for feature ")
    assert message.endswith(", expected numbers; correct it or leave the column out")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_with_its_feature(value: float) -> None:
    broken = table()
    broken.loc[40, "b"] = value
    message = refused(broken, ["a", "b", "c"], "statistics")
    assert f"column 'b' holds {value} for feature 40 (1 such value in all)," in message
    broken.loc[50, "c"] = value
    assert "feature 40 (2 such values in all)" in refused(broken, ["a", "b", "c"], "statistics")
    assert finite_values(broken, ["a"], "statistics").shape == (6, 1)


def test_missing_values_of_pandas_are_not_finite() -> None:
    broken = table().assign(b=pd.array([1, 2, None, 4, 5, 6], dtype="Int64"))
    assert "column 'b' holds nan for feature 30" in refused(broken, ["b"], "statistics")


def test_a_feature_twice_is_named() -> None:
    distinct_features(table(), "statistics")
    twice = pd.concat([table(), table().loc[[30, 20]]])
    with pytest.raises(InputError, match=r"labels: feature 30 is there .* \(2 rows too many\)"):
        distinct_features(twice, "labels")


def test_labels_take_the_order_of_the_statistics() -> None:
    labels = table().sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(aligned(table(), labels), table(), check_exact=True)
    assert aligned(table(), table()).equals(table())


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([10, 20, 30, 40, 50], "(5 and 6; feature 60 has no label)"),
        ([10, 20, 30, 40, 50, 60, 70], "(7 and 6; feature 70 has no statistics)"),
        (
            [11, 20, 30, 40, 50, 60],
            "(6 and 6; feature 11 has no statistics, feature 10 has no label)",
        ),
    ],
)
def test_labels_of_other_features_are_named(rows: list[int], told: str) -> None:
    labels = pd.DataFrame({"y": 0.0}, index=rows)
    with pytest.raises(InputError) as caught:
        aligned(table(), labels)
    assert told in str(caught.value)
    assert "do they belong to the same setting?" in str(caught.value)
