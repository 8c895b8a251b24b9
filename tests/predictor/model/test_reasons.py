"""Reasons: of the statistic that moves the score, in words that say which way."""

import re

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.predictor.model.models import ModularityPredictor
from cleansteer.predictor.model.reasons import in_words

REASON = re.compile(
    r"(cleaner|messier|higher|lower): (.+): (-?[\d.e+-]+), dictionary median (-?[\d.e+-]+)"
)
ROWS = [5, 9]
COLUMNS = ["crowding_max_abs_cos", "decoder_norm", "direct_logit_l2", "direct_logit_entropy", "odd"]
TYPICAL = pd.Series([0.38, 1.0, 2.0, 7.0, 0.5], COLUMNS)


def told(
    added: list[float],
    values: list[float],
    target: str = "clean_score",
    columns: list[str] = COLUMNS,
    typical: pd.Series = TYPICAL,
    top: int = 3,
) -> str:
    statistics = pd.DataFrame([values], [7], columns)
    contributions = pd.DataFrame([added], [7], columns)
    return str(in_words(contributions, statistics, typical, target, top).loc[7])


def test_a_reason_gives_value_and_dictionary_median() -> None:
    found = told([-0.5, 0, 0, 0, 0], [0.61, 1, 2, 7, 0.5])
    assert found == "messier: crowded: 0.61, dictionary median 0.38"


@pytest.mark.parametrize(
    ("value", "added", "target", "words"),
    [
        (0.61, 0.5, "clean_score", "cleaner: crowded"),
        (0.1, 0.5, "clean_score", "cleaner: apart from others"),
        (0.1, -0.5, "clean_score", "messier: apart from others"),
        (0.61, 0.5, "effect_l2", "higher: crowded"),
        (0.61, -0.5, "effect_l2", "lower: crowded"),
    ],
)
def test_words_follow_value_and_direction_each_by_itself(
    value: float, added: float, target: str, words: str
) -> None:
    found = told([added, 0, 0, 0, 0], [value, 1, 2, 7, 0.5], target)
    assert found == f"{words}: {value:.2g}, dictionary median 0.38"


def test_the_strongest_come_first_whatever_their_sign() -> None:
    found = told([0.1, -0.4, 0.3, -0.2, 0.05], [0.61, 2, 3, 8, 0.6])
    assert [part.split(": ")[:2] for part in found.split("; ")] == [
        ["messier", "long decoder direction"],
        ["cleaner", "moves logits strongly"],
        ["messier", "spread over many tokens"],
    ]
    for top in range(6):
        assert len(
            [
                p
                for p in told([0.1, -0.4, 0.3, -0.2, 0.05], [1, 2, 3, 8, 1], top=top).split("; ")
                if p
            ]
        ) == min(top, 5)


def test_what_moves_nothing_is_not_told() -> None:
    values = [0.61, 2.0, 3.0, 8.0, 0.6]
    assert told([0.0, 0.01, -0.019, 0.0, 0.0], values) == ""
    assert told([0.0, 0.01, -0.021, 0.0, 0.0], values).startswith("messier: moves logits strongly")


def test_statistics_that_say_the_same_speak_with_one_voice() -> None:
    """Together they outweigh one that is stronger than each; the one that adds most speaks."""
    columns = ["decoder_norm", "crowding_max_abs_cos", "crowding_topk_mean_abs_cos"]
    typical = pd.Series([1.0, 0.4, 0.2], columns)
    found = told([0.3, 0.18, 0.2], [2.0, 0.7, 0.5], columns=columns, typical=typical)
    first, second = found.split("; ")
    assert first == "cleaner: crowded: 0.5, dictionary median 0.2"
    assert second.startswith("cleaner: long decoder")
    opposed = told([0.3, -0.5, 0.5], [2.0, 0.7, 0.5], columns=columns, typical=typical)
    assert opposed == "cleaner: long decoder direction: 2, dictionary median 1"
    torn = told([0.0, -0.5, 0.2], [2.0, 0.7, 0.5], columns=columns, typical=typical)
    assert torn == "messier: crowded: 0.7, dictionary median 0.4"


def test_a_statistic_without_words_is_called_by_its_name() -> None:
    assert told([0, 0, 0, 0, 0.5], [0.4, 1, 2, 7, 0.6]).startswith("cleaner: high odd: 0.6,")
    assert told([0, 0, 0, 0, 0.5], [0.4, 1, 2, 7, 0.4]).startswith("cleaner: low odd: 0.4,")
    columns = ["token_act_kurtosis"]
    found = told([0.5], [9.0], columns=columns, typical=pd.Series([4.0], columns))
    assert found == "cleaner: high token_act_kurtosis: 9, dictionary median 4"


def test_numbers_that_differ_are_told_apart() -> None:
    assert told([0.5, 0, 0, 0, 0], [0.3812, 1, 2, 7, 0.5]).endswith(
        ": 0.381, dictionary median 0.38"
    )


def test_every_row_has_its_own_reasons() -> None:
    generator = np.random.default_rng(0)
    contributions = pd.DataFrame(generator.normal(size=(20, 5)), range(20), COLUMNS)
    statistics = pd.DataFrame(generator.random((20, 5)), range(20), COLUMNS)
    whole = in_words(contributions, statistics, TYPICAL, "clean_score")
    assert whole.name == "reasons"
    for row in range(20):
        alone = in_words(contributions.loc[[row]], statistics.loc[[row]], TYPICAL, "clean_score")
        assert alone.loc[row] == whole.loc[row]
        assert all(REASON.fullmatch(part) for part in whole.loc[row].split("; "))


@pytest.fixture(scope="module", params=["decoder_norm", "crowding_max_abs_cos"])
def ruled(request: pytest.FixtureRequest) -> tuple[str, ModularityPredictor, pd.DataFrame]:
    """A label that falls with one statistic and has nothing to do with the others."""
    table = synthetic.statistics(100, seed=1)
    noise = 0.02 * np.random.default_rng(0).normal(size=100)
    labels = pd.DataFrame({"clean_score": noise - np.arcsinh(table[request.param])})
    return request.param, ModularityPredictor(("clean_score",)).fit(table, labels), table


def test_the_statistic_that_rules_is_the_reason(
    ruled: tuple[str, ModularityPredictor, pd.DataFrame],
) -> None:
    name, predictor, _ = ruled
    high, low = {
        "decoder_norm": ("long decoder direction", "short decoder direction"),
        "crowding_max_abs_cos": ("crowded", "apart from others"),
    }[name]
    new = synthetic.statistics(60, seed=2)
    median = new[name].median()
    reasons = predictor.reasons(new, "clean_score", top=1)
    assert reasons.index.equals(new.index)
    moved = (new[name] - median).abs() > 0.3 * new[name].std()
    assert moved.sum() > 10
    for feature in new.index[moved]:
        opinion, words, value, typical = REASON.fullmatch(reasons[feature]).groups()
        above = new.loc[feature, name] > median
        assert (opinion, words) == (("messier", high) if above else ("cleaner", low))
        assert float(value) == pytest.approx(new.loc[feature, name], rel=0.06)
        assert float(typical) == pytest.approx(median, rel=0.06)


def test_the_typical_feature_may_be_given(
    ruled: tuple[str, ModularityPredictor, pd.DataFrame],
) -> None:
    """Then a row's reasons do not depend on the rows beside it."""
    name, predictor, table = ruled
    typical = table.median()
    whole = predictor.reasons(table, "clean_score", typical=typical)
    some = predictor.reasons(table.iloc[:7], "clean_score", typical=typical)
    pd.testing.assert_series_equal(some, whole.iloc[:7])
    extreme = table.loc[[table[name].idxmax()]]
    added = predictor.explain(extreme, typical=typical)["clean_score"].drop(columns="base")
    assert added.abs().idxmax(axis=1).iloc[0] == name
    assert predictor.reasons(extreme, "clean_score", typical=typical).iloc[0].startswith("messier")


def test_tables_that_will_not_do_are_refused(
    ruled: tuple[str, ModularityPredictor, pd.DataFrame],
) -> None:
    _, predictor, table = ruled
    with pytest.raises(InputError, match="statistics lack 'direct_logit_l2'"):
        predictor.reasons(table.drop(columns="direct_logit_l2"), "clean_score")
    with pytest.raises(InputError, match="'direct_logit_l2' holds 'much'"):
        predictor.reasons(table.assign(direct_logit_l2="much"), "clean_score")
