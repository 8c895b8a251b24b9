"""What a committee is least sure about: a function of the labels, feature by feature."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.predictor.model.committee import uncertainty

N = 40
ROUNDING = 1e-9
"""Of sums in another order."""


def labelled(seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = synthetic.statistics(N, seed)
    return table, synthetic.labels(table, 0.5, seed)


def candidates(n: int = 50) -> pd.DataFrame:
    return synthetic.statistics(n, seed=2)


def test_the_same_labels_give_the_same_and_another_seed_another() -> None:
    first, again = (uncertainty(*labelled(), candidates(), 3) for _ in range(2))
    pd.testing.assert_series_equal(first, again, check_exact=True)
    assert list(first.index) == list(candidates().index)
    assert (first > 0).all()
    assert not np.allclose(first, uncertainty(*labelled(), candidates(), 4))


def test_a_candidate_is_judged_by_itself() -> None:
    every = uncertainty(*labelled(), candidates(), 0)
    some = candidates().iloc[[30, 4, 17]]
    alone = uncertainty(*labelled(), some, 0)
    pd.testing.assert_series_equal(alone, every.loc[some.index], rtol=ROUNDING)


def test_labels_that_are_all_the_same_leave_no_doubt() -> None:
    table, labels = labelled()
    unsure = uncertainty(table, labels.assign(clean_score=2.5), candidates(), 0)
    assert unsure.max() < ROUNDING


def test_labels_without_pattern_leave_more_doubt_than_labels_with_one() -> None:
    """Of equal spread, so that it is the pattern that tells them apart."""
    ratios = []
    for seed in range(3):
        table = synthetic.statistics(N, seed)
        labels = synthetic.labels(table, 0.1, seed)
        shuffled = np.random.default_rng(seed).permutation(labels["clean_score"].to_numpy())
        unsure = uncertainty(table, labels, candidates(), seed).mean()
        without = uncertainty(table, labels.assign(clean_score=shuffled), candidates(), seed).mean()
        ratios.append(unsure / without)
    assert np.mean(ratios) < 0.9


def test_the_doubt_has_the_unit_of_the_labels() -> None:
    """Blends see ranks alone, and ranks are carried back to labels: a linear map is carried too."""
    table, labels = labelled()
    plain = uncertainty(table, labels, candidates(), 0)
    moved = uncertainty(
        table, labels.assign(clean_score=3 * labels["clean_score"] + 7), candidates(), 0
    )
    pd.testing.assert_series_equal(moved, 3 * plain, rtol=ROUNDING)


def test_what_is_no_number_is_refused() -> None:
    table, labels = labelled()
    some = candidates()
    some.iloc[3, 2] = np.nan
    with pytest.raises(InputError, match=f"'decoder_norm' holds nan for feature {some.index[3]} "):
        uncertainty(table, labels, some, 0)
    with pytest.raises(InputError, match="labels lack 'clean_score'"):
        uncertainty(table, labels.drop(columns="clean_score"), candidates(), 0)


def test_only_the_clean_score_counts() -> None:
    table, labels = labelled()
    alone = uncertainty(table, labels[["clean_score"]], candidates(), 0)
    pd.testing.assert_series_equal(alone, uncertainty(table, labels, candidates(), 0))


def test_rows_of_other_features_are_refused() -> None:
    table, labels = labelled()
    with pytest.raises(ValueError, match="not of the same features"):
        uncertainty(table, labels.iloc[::-1], candidates(), 0)


def test_without_candidates_there_is_nothing_to_say() -> None:
    nothing = uncertainty(*labelled(), candidates().iloc[:0], 0)
    assert nothing.empty
    assert nothing.dtype == np.float64
