"""The choice of an allowlist's features: eligible ones, highest predicted first."""

import numpy as np
import pandas as pd
import pytest
from cleansteer.core.errors import InputError
from cleansteer.predictor.verdict import choose_allowed

N_ELIGIBLE = 30


def ranking() -> pd.DataFrame:
    """Sixty features by falling score, every other one eligible."""
    generator = np.random.default_rng(0)
    scores = np.sort(generator.normal(size=2 * N_ELIGIBLE))[::-1]
    return pd.DataFrame(
        {
            "feature": generator.permutation(2 * N_ELIGIBLE),
            "predicted_clean_score": scores,
            "eligible": np.arange(2 * N_ELIGIBLE) % 2 == 1,
        }
    )


def test_the_first_k_eligible_features_each_list_in_the_next() -> None:
    table = ranking()
    eligible = list(table.loc[table["eligible"], "feature"])
    for k in range(1, N_ELIGIBLE + 1):
        features, criterion = choose_allowed(table, top=k)
        assert features == sorted(eligible[:k])
        assert criterion.model_dump() == {"rule": "top", "k": k, "score": "predicted_clean_score"}
    assert all(type(feature) is int for feature in features)


def test_a_least_score_takes_exactly_what_reaches_it() -> None:
    table = ranking()
    eligible = table[table["eligible"]].reset_index(drop=True)
    for k, score in enumerate(eligible["predicted_clean_score"], 1):
        features, criterion = choose_allowed(table, min_score=score)
        assert features == choose_allowed(table, top=k)[0]
        assert criterion.model_dump() == {
            "rule": "min_score",
            "min_score": score,
            "score": "predicted_clean_score",
        }
    above = float(eligible["predicted_clean_score"].max()) + 0.001
    with pytest.raises(InputError, match=f"highest is {above - 0.001:.3f}; lower --min-score"):
        choose_allowed(table, min_score=above)


@pytest.mark.parametrize("top", [-1, 0, 31])
def test_numbers_that_are_not_there_are_refused(top: int) -> None:
    with pytest.raises(InputError, match=f"--top {top} does not lie between 1 and the 30 elig"):
        choose_allowed(ranking(), top=top)


@pytest.mark.parametrize("both", [{}, {"top": 3, "min_score": 0.0}])
def test_one_criterion_is_asked_for(both: dict[str, float]) -> None:
    with pytest.raises(InputError, match="give either --top K or --min-score S"):
        choose_allowed(ranking(), **both)  # type: ignore[arg-type]
