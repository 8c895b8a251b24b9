"""The predictor: a scikit-learn estimator by column name, whose held-out rows are honest."""

import itertools
import os
import threading
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.predictor.evidence.scores import out_of_fold, spearman
from cleansteer.predictor.model import models
from cleansteer.predictor.model.blend import CANDIDATES, Blend, blended, choose_weights
from cleansteer.predictor.model.models import ModularityPredictor
from cleansteer.predictor.model.targets import ABSOLUTE, bounds, keeps_tails
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

FITTED = ("clean_score", "effect_l2")
N = 60


def table(n: int = N) -> pd.DataFrame:
    return synthetic.statistics(n, seed=1)


def known(n: int = N, noise: float = 0.3) -> pd.DataFrame:
    return synthetic.labels(table(n), noise, seed=1)


def fresh(n: int = 40) -> pd.DataFrame:
    return synthetic.statistics(n, seed=2)


@pytest.fixture(scope="module")
def predictor() -> ModularityPredictor:
    return ModularityPredictor(FITTED).fit(table(), known())


def said(predictor: ModularityPredictor) -> list[pd.DataFrame]:
    return [
        predictor.out_of_fold_,
        predictor.predict(fresh()),
        predictor.predict_interval(fresh(), 0.8),
        predictor.explain(fresh()),
    ]


def assert_same(one: ModularityPredictor, two: ModularityPredictor) -> None:
    for a, b in zip(said(one), said(two), strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_parameters_are_scikit_learns() -> None:
    predictor = ModularityPredictor(FITTED, 3, 40)
    assert predictor.get_params() == {
        "targets": FITTED,
        "seed": 3,
        "least_labelled": 40,
        "scale": "values",
    }
    assert predictor.set_params(seed=5) is predictor
    assert predictor.seed == 5
    assert ModularityPredictor().targets == ABSOLUTE.targets


def test_a_clone_is_set_up_alike_and_not_fitted(predictor: ModularityPredictor) -> None:
    copied = clone(predictor)
    assert copied.get_params() == predictor.get_params()
    assert not [name for name in vars(copied) if name.endswith("_")]
    assert_same(copied.fit(table(), known()), predictor)


def test_fitting_returns_itself_and_may_be_done_again(predictor: ModularityPredictor) -> None:
    again = ModularityPredictor(FITTED)
    narrow = table(40).drop(columns="decoder_norm")
    assert again.fit(narrow, known(40)) is again
    assert_same(again.fit(table(), known()), predictor)


@pytest.mark.parametrize(
    "ask",
    [
        lambda p: p.predict(fresh()),
        lambda p: p.predict_interval(fresh()),
        lambda p: p.explain(fresh()),
        lambda p: p.reasons(fresh(), "clean_score"),
    ],
)
def test_what_is_not_fitted_says_so(ask: Callable[[ModularityPredictor], object]) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        ask(ModularityPredictor())


def test_rows_and_columns_may_come_in_any_order(predictor: ModularityPredictor) -> None:
    rows = fresh()
    expected = predictor.predict(rows)
    assert list(expected.columns) == list(FITTED)
    assert expected.index.equals(rows.index)
    mixed = rows.assign(unknown=np.nan, direct_top_tokens="the").sample(frac=1, random_state=0)
    mixed = mixed[["unknown", *reversed(rows.columns)]]
    pd.testing.assert_frame_equal(
        predictor.predict(mixed), expected.loc[mixed.index], check_exact=True
    )
    alone = pd.concat([predictor.predict(rows.iloc[[i]]) for i in range(5)])
    pd.testing.assert_frame_equal(alone, expected.iloc[:5])
    assert predictor.predict(rows.iloc[:0]).shape == (0, 2)


def test_rows_keep_whatever_index_they_have(predictor: ModularityPredictor) -> None:
    rows = fresh()
    for index in (pd.Index([f"f{i}" for i in range(40)], name="name"), pd.Index([7] * 40)):
        for found in (
            predictor.predict(rows.set_index(index)),
            predictor.predict_interval(rows.set_index(index)),
            predictor.explain(rows.set_index(index)),
        ):
            pd.testing.assert_index_equal(found.index, index)


def test_labels_in_another_order_are_aligned(predictor: ModularityPredictor) -> None:
    mixed = known().sample(frac=1, random_state=0)
    assert_same(ModularityPredictor(FITTED).fit(table(), mixed), predictor)


def test_any_numeric_column_may_be_a_target_and_any_statistics_do() -> None:
    some = table()[["decoder_norm", "final_act_freq"]].assign(feature=1, direct_top_tokens="a")
    odd = known().assign(odd=np.arange(N) % 7, unused="text")
    predictor = ModularityPredictor(("odd",)).fit(some, odd)
    assert predictor.columns_ == ["decoder_norm", "final_act_freq"]
    assert list(predictor.predict(fresh()).columns) == ["odd"]
    assert predictor.out_of_fold_.index.equals(some.index)


def test_targets_are_fitted_apart(predictor: ModularityPredictor) -> None:
    """Another target's labels change nothing."""
    alone = ModularityPredictor(FITTED[:1]).fit(table(), known())
    other = known().assign(effect_l2=known()["effect_l2"].to_numpy()[::-1])
    together = ModularityPredictor(FITTED).fit(table(), other)
    for a, b in zip(said(together), said(alone), strict=True):
        pd.testing.assert_frame_equal(a[["clean_score"]], b, check_exact=True)


def test_some_targets_may_be_asked_for(predictor: ModularityPredictor) -> None:
    for ask in (predictor.predict_interval, predictor.explain):
        some = ask(fresh(), targets=("effect_l2",))
        pd.testing.assert_frame_equal(some, ask(fresh())[["effect_l2"]], check_exact=True)


@pytest.mark.parametrize("workers", [1, 4])
def test_threads_change_nothing_and_every_fit_ticks(
    workers: int, predictor: ModularityPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: workers)
    ticks, threads = [], set()

    def tick() -> None:
        ticks.append(1)
        threads.add(threading.current_thread().name.rpartition("_")[2])

    one = ModularityPredictor(FITTED)
    assert one.n_fits == 12
    one.fit(table(), known(), tick)
    assert len(ticks) == one.n_fits
    assert threads <= {str(number) for number in range(workers)}
    assert_same(one, predictor)


def test_another_seed_gives_another_predictor_that_agrees(predictor: ModularityPredictor) -> None:
    other = ModularityPredictor(FITTED, seed=1).fit(table(), known())
    one, two = (p.predict(fresh()) for p in (predictor, other))
    assert not np.allclose(one, two, rtol=1e-6)
    assert not np.array_equal(other.folds_, predictor.folds_)
    for target in FITTED:
        assert spearman(one[target].to_numpy(), two[target].to_numpy()) > 0.85


@pytest.mark.parametrize("row", [0, 17, 41])
@pytest.mark.parametrize("wrong", [1e6, -1e6])
def test_a_label_never_moves_its_own_out_of_fold_prediction(
    row: int, wrong: float, predictor: ModularityPredictor
) -> None:
    labels = known()
    labels.iloc[row, labels.columns.get_loc("clean_score")] += wrong
    after = ModularityPredictor(FITTED[:1]).fit(table(), labels).out_of_fold_["clean_score"]
    before = predictor.out_of_fold_["clean_score"]
    fold = predictor.folds_ == predictor.folds_[row]
    assert np.array_equal(after[fold], before[fold]), "nor that of others of its fold"
    assert (after[~fold] != before[~fold]).any(), "the other folds see it"


def test_out_of_fold_predictions_are_those_of_blends_of_four_fifths(
    predictor: ModularityPredictor,
) -> None:
    X, folds = table().to_numpy(), predictor.folds_
    assert (np.bincount(folds) == N // 5).all()
    for target in FITTED:
        y, (low, high) = known()[target].to_numpy(), bounds(target)
        expected = out_of_fold(blended(0, target), X, y, 0)
        assert np.array_equal(predictor.out_of_fold_[target], np.clip(expected, low, high))


def test_the_last_blends_weights_are_chosen_on_held_out_rows(
    predictor: ModularityPredictor,
) -> None:
    X = table().to_numpy()
    for target in FITTED:
        y = known()[target].to_numpy()
        held_out = np.empty((N, len(CANDIDATES)))
        for fold, blend in enumerate(predictor.fold_models_[target]):
            rows = predictor.folds_ == fold
            held_out[rows] = blend.candidates(X[rows])
        weights = choose_weights(held_out, y, keeps_tails(target))
        whole = predictor.models_[target]
        assert np.array_equal(whole.weights, weights)
        expected = Blend(0, keeps_tails(target)).fit(X, y, weights).predict(fresh().to_numpy())
        np.testing.assert_allclose(
            predictor.predict(fresh())[target], np.clip(expected, *bounds(target)), rtol=1e-9
        )


@pytest.mark.parametrize(
    ("target", "scale", "own_units"),
    [
        ("clean_score", "values", True),
        ("clean_score", "ranks", False),
        *((target, "values", False) for target in ABSOLUTE.targets if target != "clean_score"),
    ],
)
def test_the_clean_score_alone_is_fitted_in_its_own_units(
    target: str, scale: str, own_units: bool
) -> None:
    """Other labels are fitted by their ranks: stretched unevenly, they order features as before. The
    clean score of one setting heeds how far apart features are, in whatever unit.
    """
    X, y = table(), known(noise=0.5)["clean_score"] + 10

    def predicted(label: pd.Series) -> np.ndarray:
        fitted = ModularityPredictor([target], scale=scale)
        found = fitted.fit(X, pd.DataFrame({target: label})).out_of_fold_[target]
        return np.asarray(found)

    y = y / (y.max() + 1)  # within the bounds of every label
    plain, uneven = predicted(y), predicted((np.exp(8 * y) - 1) / np.exp(8))
    alike = spearman(plain, uneven)
    assert alike < 0.99 if own_units else alike == pytest.approx(1, abs=1e-3)
    if own_units:
        np.testing.assert_allclose(predicted(3 * y - 1), 3 * plain - 1, rtol=1e-6)


def test_a_label_keeps_to_what_it_can_be() -> None:
    labels = pd.DataFrame(
        {"stability_abs": np.clip(known()["clean_score"], 0, 1), "effect_l2": 0.0}
    )
    labels["effect_l2"] = np.maximum(known()["effect_l2"], 0)
    bounded = ModularityPredictor(("stability_abs", "effect_l2")).fit(table(), labels)
    for found in (bounded.out_of_fold_, bounded.predict(100 * fresh())):
        assert found["stability_abs"].between(0, 1).all()
        assert (found["effect_l2"] >= 0).all()
    wide = bounded.predict_interval(fresh(), 0.97)
    assert wide["stability_abs"].to_numpy().min() >= 0
    assert wide["stability_abs"].to_numpy().max() <= 1
    assert wide["effect_l2"].to_numpy().min() >= 0


def test_a_row_outside_the_range_predicts_as_the_clipped_one(
    predictor: ModularityPredictor,
) -> None:
    generator = np.random.default_rng(0)
    for scale in (10.0, 1e6):
        outside = fresh() + scale * generator.normal(size=(40, table().shape[1]))
        clipped = outside.clip(table().min(), table().max(), axis=1)
        assert not clipped.equals(outside)
        pd.testing.assert_frame_equal(
            predictor.predict(outside), predictor.predict(clipped), check_exact=True
        )


def test_a_feature_unlike_all_labelled_ones_is_not_extrapolated_to(
    predictor: ModularityPredictor,
) -> None:
    """A straight line through two statistics would leave the labels' range far behind."""
    strange = pd.DataFrame(1e30, index=[7], columns=table().columns).assign(final_act_freq=0.0)
    predicted = predictor.predict(strange).iloc[0]
    for target in FITTED:
        spread = np.ptp(known()[target])
        assert known()[target].min() - spread < predicted[target]
        assert predicted[target] < known()[target].max() + spread


@pytest.mark.parametrize("value", [0.0, 0.1, 3.5])
def test_a_constant_target_is_what_it_is_without_doubt(value: float) -> None:
    one = ModularityPredictor(("clean_score",)).fit(table(), known().assign(clean_score=value))
    for found in (one.out_of_fold_, one.predict(fresh()), one.predict_interval(fresh())):
        assert (found.to_numpy() == value).all()
    assert (one.explain(fresh())["clean_score"].to_numpy() == 0).all()
    assert (one.reasons(fresh(), "clean_score") == "").all()


def test_statistics_that_say_nothing_are_named() -> None:
    constant = table().assign(decoder_norm=0.1, direct_logit_l2=0.0)
    one = ModularityPredictor(FITTED[:1]).fit(constant, known())
    assert one.constant_ == ["decoder_norm", "direct_logit_l2"]
    explained = one.explain(fresh())["clean_score"]
    np.testing.assert_allclose(explained[one.constant_], 0, atol=1e-12)


def test_explanations_sum_to_the_predicted_score(predictor: ModularityPredictor) -> None:
    for typical in (None, table().iloc[3]):
        explained = predictor.explain(fresh(), typical=typical)
        for target in FITTED:
            assert list(explained[target].columns) == [*predictor.columns_, "base"]
            score = predictor.models_[target].predict_scores(fresh().to_numpy())
            np.testing.assert_allclose(explained[target].sum(axis=1), score, atol=1e-9)


def test_features_are_told_from_their_median_unless_said_otherwise(
    predictor: ModularityPredictor,
) -> None:
    pd.testing.assert_frame_equal(
        predictor.explain(fresh()),
        predictor.explain(fresh(), typical=fresh().median()),
        check_exact=True,
    )
    moved = predictor.explain(fresh(), typical=fresh().quantile(0.9))
    assert not np.allclose(moved, predictor.explain(fresh()))


def refused(X: pd.DataFrame, Y: pd.DataFrame) -> str:
    with pytest.raises(InputError) as caught:
        ModularityPredictor(FITTED).fit(X, Y)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float, predictor: ModularityPredictor) -> None:
    row = table().index[17]
    broken, unlabelled = table(), known()
    broken.loc[row, "decoder_norm"] = unlabelled.loc[row, "effect_l2"] = value
    message = refused(broken, known())
    assert message.startswith(f"statistics: column 'decoder_norm' holds {value} for feature {row} ")
    message = refused(table(), unlabelled)
    assert message.startswith(f"labels: column 'effect_l2' holds {value} for feature {row} ")
    for ask in (predictor.predict, predictor.predict_interval, predictor.explain):
        with pytest.raises(InputError, match=f"'decoder_norm' holds {value} for feature {row} "):
            ask(broken)


def test_columns_that_are_missing_or_text_are_named(predictor: ModularityPredictor) -> None:
    assert refused(table(), known()[["clean_score"]]).startswith(
        "labels lack 'effect_l2', expected clean_score, effect_l2; "
    )
    text = table().assign(decoder_norm="long")
    assert refused(text, known()).startswith(
        "statistics: column 'decoder_norm' holds 'long' for feature"
    )
    narrow = table().drop(columns=["decoder_norm", "direct_logit_l2"])
    for ask in (predictor.predict, predictor.predict_interval, predictor.explain):
        with pytest.raises(InputError, match="statistics lack 'decoder_norm', 'direct_logit_l2', "):
            ask(narrow)
        with pytest.raises(InputError, match="column 'decoder_norm' holds 'long' for feature 41"):
            ask(text)


def test_a_table_without_statistics_is_refused() -> None:
    nothing = pd.DataFrame({"direct_top_tokens": "a"}, index=table().index)
    assert refused(nothing, known()).startswith("the table holds no statistics; compute them")


def test_features_twice_and_features_of_others_are_refused() -> None:
    first = table().index[0]
    twice, labels_twice = (pd.concat([t, t.iloc[:1]]) for t in (table(), known()))
    assert f"statistics: feature {first} is there more than once" in refused(twice, known())
    message = refused(table(), labels_twice)
    assert f"labels: feature {first} is there more than once" in message
    message = refused(table(), known().iloc[1:])
    assert f"of different features (59 and 60; feature {first} has no label)" in message
    message = refused(table().iloc[1:], known())
    assert f"of different features (60 and 59; feature {first} has no statistics)" in message


def test_too_few_are_refused() -> None:
    assert refused(table(29), known(29)).startswith(
        "29 labelled features are too few to fit a predictor, expected at least 30; label more"
    )
    assert len(ModularityPredictor(FITTED[:1]).fit(table(30), known(30)).out_of_fold_) == 30
    fewer = ModularityPredictor(FITTED[:1], least_labelled=12).fit(table(12), known(12))
    assert np.isfinite(fewer.predict(fresh()).to_numpy()).all()


def test_an_empty_table_has_no_typical_feature(predictor: ModularityPredictor) -> None:
    empty = table().iloc[:0]
    with pytest.raises(
        InputError, match="table of statistics is empty, expected a feature or more"
    ):
        predictor.explain(empty)
    assert predictor.explain(empty, typical=table().iloc[0]).empty
    assert predictor.predict_interval(empty).empty


def test_an_empty_table_is_too_few_to_fit() -> None:
    empty = ModularityPredictor(FITTED, least_labelled=0)
    with pytest.raises(
        InputError, match=r"0 labelled features are too few .* at least 5; label more"
    ):
        empty.fit(table().iloc[:0], known().iloc[:0])


@pytest.mark.parametrize("ask", ["predict_interval", "explain"])
def test_an_unknown_target_is_refused(ask: str, predictor: ModularityPredictor) -> None:
    with pytest.raises(
        InputError, match=r"target 'kl' is not .* expected clean_score, effect_l2; "
    ):
        getattr(predictor, ask)(table(), targets=("kl",))
    with pytest.raises(InputError, match="target 'kl' is not"):
        predictor.reasons(table(), "kl")


def test_every_name_it_promises_is_there(predictor: ModularityPredictor) -> None:
    promised = ("columns_", "out_of_fold_", "models_", "constant_")
    assert all(f"{name}:" in (models.ModularityPredictor.__doc__ or "") for name in promised)
    assert all(hasattr(predictor, name) for name in promised)
    assert list(itertools.chain(predictor.models_)) == list(FITTED)
