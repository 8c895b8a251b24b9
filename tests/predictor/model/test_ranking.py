"""The ranking: honest rows, intervals that cover what they claim, allowlists as asked."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.predictor.model.models import INTERVAL_LEVEL, ModularityPredictor
from cleansteer.predictor.model.ranking import COLUMNS, rank_features
from cleansteer.predictor.model.targets import ABSOLUTE, CLEAN_SCORE


class Given(ModularityPredictor):
    """Says what it was given, and notes what it was asked."""

    def __init__(self, table: pd.DataFrame, out_of_fold: pd.DataFrame) -> None:
        self.targets = ABSOLUTE.targets
        self.table = table
        self.out_of_fold_ = out_of_fold

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        return self.table.loc[X.index].copy()

    def predict_interval(
        self,
        X: pd.DataFrame,
        level: float = 0.5,
        targets: Sequence[str] | None = None,
        held_out: bool = False,
    ) -> pd.DataFrame:
        self.asked = (level, targets, held_out)
        ends = {
            (target, end): self.table.loc[X.index, target] + shift
            for target in targets or ABSOLUTE.targets
            for end, shift in (("low", -1.0), ("high", 2.0))
        }
        return pd.DataFrame(ends, index=X.index)

    def reasons(
        self, X: pd.DataFrame, target: str, top: int = 3, typical: pd.Series | None = None
    ) -> pd.Series:
        assert typical is None, "features are told from the median of them all"
        return pd.Series([f"{target} of {feature}" for feature in X.index], X.index)


def features(n: int, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "feature": np.arange(n),
            "final_act_freq": generator.random(n),
            "direct_top_tokens": [[f"t{i}"] for i in range(n)],
        }
    )


def scores(index: np.ndarray, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(len(index), len(ABSOLUTE.targets)))
    return pd.DataFrame(values, index, list(ABSOLUTE.targets))


class World:
    """Predictions, out-of-fold predictions and labels that differ, so that none is mistaken."""

    def __init__(self, n: int = 60, n_labelled: int = 25, seed: int = 0) -> None:
        self.features = features(n, seed)
        self.labelled = np.sort(np.random.default_rng(seed).permutation(n)[:n_labelled])
        self.predictions = scores(np.arange(n), seed)
        self.out_of_fold = scores(self.labelled, seed + 1)
        self.labels = scores(self.labelled, seed + 2)
        self.eligible = set(range(0, n, 2))

    def rank(self) -> pd.DataFrame:
        self.predictor = Given(self.predictions, self.out_of_fold)
        return rank_features(self.features, self.labels, self.predictor, self.eligible)


def test_every_feature_once_by_falling_score() -> None:
    world = World()
    ranking = world.rank()
    assert set(COLUMNS) <= set(ranking.columns)
    assert sorted(ranking["feature"]) == list(range(60))
    assert list(ranking["rank"]) == list(range(1, 61))
    assert ranking["predicted_clean_score"].is_monotonic_decreasing
    assert set(ranking.loc[ranking["eligible"], "feature"]) == world.eligible


def test_labelled_features_carry_predictions_of_models_that_did_not_see_them() -> None:
    world = World()
    ranking = world.rank().set_index("feature").sort_index()
    others = np.setdiff1d(np.arange(60), world.labelled)
    assert (ranking["measured"] == np.isin(np.arange(60), world.labelled)).all()
    for target in ABSOLUTE.targets:
        predicted, measured = ranking[f"predicted_{target}"], ranking[f"measured_{target}"]
        assert np.array_equal(predicted[world.labelled], world.out_of_fold[target])
        assert np.array_equal(predicted[others], world.predictions.loc[others, target])
        assert np.array_equal(measured[world.labelled], world.labels[target])
        assert measured[others].isna().all()


def test_what_the_features_are_stays_with_them() -> None:
    world = World()
    ranking = world.rank().set_index("feature").sort_index()
    assert np.array_equal(ranking["final_act_freq"], world.features["final_act_freq"])
    assert list(ranking["direct_top_tokens"]) == [[f"t{i}"] for i in range(60)]


def test_ties_go_to_the_lower_index() -> None:
    world = World()
    world.predictions[CLEAN_SCORE] = np.arange(60) % 3
    world.out_of_fold[CLEAN_SCORE] = world.labelled % 3
    world.features = world.features.sample(frac=1, random_state=0)
    expected = sorted(range(60), key=lambda feature: (-(feature % 3), feature))
    assert list(world.rank()["feature"]) == expected


def test_the_order_of_the_tables_does_not_matter() -> None:
    world = World()
    expected = world.rank()
    world.features = world.features.sample(frac=1, random_state=0)
    world.out_of_fold = world.out_of_fold.sample(frac=1, random_state=1)
    world.labels = world.labels.sample(frac=1, random_state=2)
    pd.testing.assert_frame_equal(world.rank(), expected)


def test_a_better_score_ranks_no_lower() -> None:
    world = World()
    before = world.rank().set_index("feature")["rank"]
    feature = int(np.setdiff1d(np.arange(60), world.labelled)[7])
    world.predictions.loc[feature, CLEAN_SCORE] += 1.0
    after = world.rank().set_index("feature")["rank"]
    assert after[feature] < before[feature]
    others = before.drop(feature).sort_values().index
    assert after[others].is_monotonic_increasing


def test_intervals_are_the_predictors_of_models_that_did_not_see_the_label() -> None:
    world = World()
    ranking = world.rank().set_index("feature").sort_index()
    assert world.predictor.asked == (INTERVAL_LEVEL, list(ABSOLUTE.judged), True)
    for target in (CLEAN_SCORE, "stability_abs", "collateral_per_effect"):
        middle = world.predictions[target]
        assert np.array_equal(ranking[f"predicted_{target}_low"], middle - 1.0)
        assert np.array_equal(ranking[f"predicted_{target}_high"], middle + 2.0)


def test_reasons_are_of_the_clean_score_and_stay_with_their_feature() -> None:
    world = World()
    world.features = world.features.sample(frac=1, random_state=0)
    ranking = world.rank()
    assert list(ranking["reasons"]) == [f"clean_score of {f}" for f in ranking["feature"]]


@pytest.fixture(scope="module")
def real() -> tuple[pd.DataFrame, pd.DataFrame, ModularityPredictor, pd.DataFrame]:
    """A dictionary of 90, 50 of them labelled; labels; the real predictor; its ranking."""
    statistics = synthetic.statistics(90, 3)
    labels = synthetic.labels(statistics.iloc[:50], 0.5, 3)
    predictor = ModularityPredictor().fit(statistics.iloc[:50], labels)
    table = statistics.rename_axis("feature").reset_index()
    table["direct_top_tokens"] = [[]] * 90
    return table, labels, predictor, rank_features(table, labels, predictor, set())


def test_the_real_predictors_rows_are_what_it_says_itself(
    real: tuple[pd.DataFrame, pd.DataFrame, ModularityPredictor, pd.DataFrame],
) -> None:
    table, labels, predictor, ranking = real
    X = table.set_index("feature")
    ranked = ranking.set_index("feature").loc[X.index]
    known = ranked.loc[labels.index]
    others = ranked[~ranked["measured"]]
    for target in ABSOLUTE.targets:
        column = f"predicted_{target}"
        assert np.array_equal(known[column], predictor.out_of_fold_[target])
        assert np.array_equal(others[column], predictor.predict(X).loc[others.index, target])
    inside = (ranked["predicted_clean_score_low"] <= ranked["predicted_clean_score"]) & (
        ranked["predicted_clean_score"] <= ranked["predicted_clean_score_high"]
    )
    assert inside.all()
    assert np.array_equal(ranked["reasons"], predictor.reasons(X, CLEAN_SCORE))


def test_a_label_does_not_move_its_own_rows_prediction(
    real: tuple[pd.DataFrame, pd.DataFrame, ModularityPredictor, pd.DataFrame],
) -> None:
    table, labels, _, ranking = real
    feature = labels.index[11]
    wrong = labels.copy()
    wrong.loc[feature, CLEAN_SCORE] += 1000.0
    X = table.set_index("feature").loc[labels.index]
    after = rank_features(table, wrong, ModularityPredictor().fit(X, wrong), set())
    columns = [f"predicted_{target}" for target in ABSOLUTE.targets]
    pd.testing.assert_frame_equal(
        after.set_index("feature").loc[[feature], columns],
        ranking.set_index("feature").loc[[feature], columns],
        check_exact=True,
    )
