"""The choice of an allowlist's features: eligible ones, highest predicted first."""

from typing import Any

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


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({}, "nothing says how many features; expected --top K, --min-score S, --min-stability X"),
        ({"by": "both"}, "nothing says how many features"),
        ({"top": 3, "min_score": 0.0}, "--top and --min-score exclude each other"),
        ({"min_score": 0.0, "by": "both"}, "--min-score is a clean score, and --by both does not"),
        ({"top": 31, "min_stability": 0.1}, "--top 31 does not lie between 1 and the .* that pass"),
        ({"min_stability": 0.99}, "no eligible feature has a predicted stability_abs of 0.99"),
        ({"max_collateral_per_effect": 0.01}, "no eligible feature has a predicted collateral_per"),
        (
            {"min_stability": 0.75, "max_collateral_per_effect": 0.01},
            "no eligible feature that is stable enough has",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_chosen_is_refused(asked: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        choose_allowed(judged(), **asked)


def judged() -> pd.DataFrame:
    """The ranking with predictions of both axes and their intervals, in no relation to the score."""
    generator, table = np.random.default_rng(1), ranking()
    for name, low in (("stability_abs", 0.3), ("collateral_per_effect", 0.8)):
        value = low + 0.5 * generator.random(len(table))
        width = 0.05 * generator.random(len(table))
        table[f"predicted_{name}"] = value
        table[f"predicted_{name}_low"], table[f"predicted_{name}_high"] = (
            value - width,
            value + width,
        )
    return table


def chosen(table: pd.DataFrame, **asked: Any) -> pd.DataFrame:
    """Rows of what is chosen, and of the other eligible features, marked."""
    features, _ = choose_allowed(table, **asked)
    eligible = table[table["eligible"]]
    assert set(features) <= set(eligible["feature"])
    return eligible.assign(chosen=eligible["feature"].isin(features))


@pytest.mark.parametrize("top", [1, 7, N_ELIGIBLE])
@pytest.mark.parametrize(
    ("by", "column", "sign"),
    [
        ("stability", "predicted_stability_abs", 1),
        ("collateral", "predicted_collateral_per_effect", -1),
    ],
)
def test_by_one_axis_it_is_the_cleanest_there(by: Any, column: str, sign: int, top: int) -> None:
    rows = chosen(judged(), top=top, by=by)
    taken, left = (sign * rows.loc[rows["chosen"] == value, column] for value in (True, False))
    assert len(taken) == top
    assert left.empty or taken.min() > left.max()


def test_by_both_no_feature_that_is_left_is_better_on_both() -> None:
    for top in (1, 5, 12):
        rows = chosen(judged(), top=top, by="both")
        stable = rows["predicted_stability_abs"].rank().to_numpy()
        spread = rows["predicted_collateral_per_effect"].rank(ascending=False).to_numpy()
        worse = np.minimum(stable, spread)
        taken = rows["chosen"].to_numpy()
        assert taken.sum() == top
        assert worse[taken].min() >= worse[~taken].max()


def test_of_ties_the_higher_clean_score_comes_first() -> None:
    table = judged()
    table["predicted_stability_abs"] = 0.5
    features, _ = choose_allowed(table, top=4, by="stability")
    assert features == choose_allowed(table, top=4)[0]


def test_units_of_an_axis_do_not_matter() -> None:
    table = judged()
    other = table.assign(predicted_stability_abs=np.exp(9 * table["predicted_stability_abs"]))
    assert choose_allowed(other, top=9, by="both")[0] == choose_allowed(table, top=9, by="both")[0]


def test_floors_hold_on_whole_intervals() -> None:
    table = judged()
    rows = chosen(table, min_stability=0.5, max_collateral_per_effect=1.1)
    passing = (rows["predicted_stability_abs_low"] >= 0.5) & (
        rows["predicted_collateral_per_effect_high"] <= 1.1
    )
    assert 0 < passing.sum() < len(rows)
    assert (rows["chosen"] == passing).all()
    _, criterion = choose_allowed(table, min_stability=0.5)
    assert criterion.model_dump() == {"rule": "floors", "min_stability": 0.5}


def test_floors_come_before_the_number() -> None:
    table = judged()
    passing, _ = choose_allowed(table, min_stability=0.5)
    few, criterion = choose_allowed(table, top=3, min_stability=0.5, by="collateral")
    assert set(few) < set(passing)
    assert criterion.model_dump() == {
        "rule": "top",
        "k": 3,
        "score": "predicted_collateral_per_effect",
        "min_stability": 0.5,
    }


@pytest.mark.parametrize(
    "asked", [{"top": 3, "by": "both"}, {"min_stability": 0.1}, {"max_collateral_per_effect": 2.0}]
)
@pytest.mark.parametrize("unknown", [False, True], ids=["lacking", "NaN"])
def test_what_the_ranking_does_not_hold_is_told(asked: dict[str, Any], unknown: bool) -> None:
    table = judged()
    columns = [name for name in table if "stability" in name or "collateral" in name]
    table = (
        table.assign(**dict.fromkeys(columns, np.nan)) if unknown else table.drop(columns=columns)
    )
    with pytest.raises(InputError, match=r"the ranking has no .* rank anew"):
        choose_allowed(table, **asked)
