"""Conformal intervals against their formula, and whether they cover what they claim."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.predictor.model import intervals
from cleansteer.predictor.model.intervals import cross_conformal
from cleansteer.predictor.model.models import ModularityPredictor
from cleansteer.predictor.model.targets import CLEAN_SCORE
from scipy.stats import binomtest, ttest_1samp

SIGNIFICANT = 1e-3  # seeds are fixed, so what passes once passes always
FOLDS = 5


def cv_plus(
    predictions: np.ndarray, y: np.ndarray, folds: np.ndarray, new: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Barber et al. 2021, section 3, row by row: order statistics of n + 1 places."""
    n, alpha = len(y), 1 - level
    lower_place = math.floor(round(alpha * (n + 1), 9))
    upper_place = math.ceil(round(level * (n + 1), 9))
    lower, upper = [], []
    for said in new:
        below, above = [], []
        for i in range(n):
            residual = abs(y[i] - predictions[i, folds[i]])
            below.append(said[folds[i]] - residual)
            above.append(said[folds[i]] + residual)
        lower.append(sorted(below)[lower_place - 1])
        upper.append(sorted(above)[upper_place - 1])
    return np.array(lower), np.array(upper)


def world(n: int, seed: int = 0, m: int = 40) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    folds = generator.permutation(np.arange(n) % FOLDS)
    y = generator.normal(size=n)
    predictions = y[:, None] + generator.standard_t(3, size=(n, FOLDS))
    return predictions, y, folds, generator.normal(size=(m, FOLDS))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("n", [30, 39, 59, 97, 120])
def test_intervals_are_the_formulas(n: int, level: float) -> None:
    for found, expected in zip(
        cross_conformal(*world(n), level), cv_plus(*world(n), level), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_models_that_agree_give_one_half_width_to_all() -> None:
    """Then it is split conformal prediction, with its corrected quantile of the errors."""
    predictions, y, folds, new = world(60)
    predictions[:], new[:] = predictions[:, :1], new[:, :1]
    low, high = cross_conformal(predictions, y, folds, new, 0.9)
    half = np.sort(np.abs(y - predictions[:, 0]))[math.ceil(0.9 * 61) - 1]
    np.testing.assert_allclose(high - new[:, 0], half)
    np.testing.assert_allclose(new[:, 0] - low, half)


def test_rows_are_judged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cross_conformal(*world(60), 0.9)
    for cells in (1, 60 * 7, 60 * 39):
        monkeypatch.setattr(intervals, "_CELLS", cells)
        assert np.array_equal(cross_conformal(*world(60), 0.9), whole)


def test_the_order_of_labelled_rows_changes_nothing() -> None:
    predictions, y, folds, new = world(60)
    order = np.random.default_rng(1).permutation(60)
    plain = cross_conformal(predictions, y, folds, new, 0.9)
    moved = cross_conformal(predictions[order], y[order], folds[order], new, 0.9)
    np.testing.assert_allclose(moved, plain, rtol=1e-12)


def test_a_higher_level_is_wider() -> None:
    ends = [cross_conformal(*world(60), level) for level in (0.5, 0.7, 0.8, 0.9, 0.95)]
    for (low, high), (lower, higher) in itertools.pairwise(ends):
        assert (lower < low).all()
        assert (high < higher).all()


def test_no_new_rows_no_intervals() -> None:
    low, high = cross_conformal(*world(60, m=0), 0.9)
    assert len(low) == len(high) == 0


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_new_rows_are_covered(level: float) -> None:
    """One new row a world, predicted as the labelled ones are: at least as often as is claimed."""
    covered, trials = 0, 250
    for seed in range(trials):
        predictions, y, folds, _ = world(41, seed)
        low, high = cross_conformal(predictions[:-1], y[:-1], folds[:-1], predictions[-1:], level)
        covered += int(low[0] <= y[-1] <= high[0])
    assert binomtest(covered, trials, level, alternative="less").pvalue > SIGNIFICANT


@pytest.fixture(scope="module")
def fitted() -> list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]]:
    """Fitted to 60 of 260 features, 10 times over; the other 200 are there to be covered."""
    found = []
    for seed in range(10):
        statistics = synthetic.statistics(260, seed)
        labels = np.exp(synthetic.labels(statistics, 1.0, seed)[[CLEAN_SCORE]])
        predictor = ModularityPredictor((CLEAN_SCORE,), seed)
        predictor.fit(statistics.iloc[:60], labels.iloc[:60])
        found.append((predictor, statistics.iloc[60:], labels[CLEAN_SCORE].iloc[60:]))
    return found


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_intervals_of_the_real_predictor_cover_new_features(
    level: float, fitted: list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]]
) -> None:
    """Of skewed labels, to the level, as Barber et al. find, and not by being endless.

    Features of one fit share its luck: so fits are the trials of the t-tests, and 0.07 above the
    level would be of intervals a fifth too wide. A binomial test over one feature a fit would not
    see a miss of 0.1; over features of all fits it is the weaker claim 2 level - 1, the theorem's.
    """
    inside = []
    for predictor, new, label in fitted:
        ends = predictor.predict_interval(new, level)[CLEAN_SCORE]
        inside.append(((ends["low"] <= label) & (label <= ends["high"])).to_numpy())
    shares = np.mean(inside, axis=1)
    assert ttest_1samp(shares, level, alternative="less").pvalue > SIGNIFICANT
    assert ttest_1samp(shares, level + 0.07, alternative="greater").pvalue > SIGNIFICANT
    theorem = binomtest(int(np.sum(inside)), np.size(inside), 2 * level - 1, alternative="less")
    assert theorem.pvalue > SIGNIFICANT
    first = [int(one[0]) for one in inside]
    assert binomtest(sum(first), len(first), level).pvalue > SIGNIFICANT


def test_intervals_of_the_predictor_are_those_of_its_scores(
    fitted: list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]],
) -> None:
    predictor, new, _ = fitted[0]
    blends, scores = predictor.fold_models_[CLEAN_SCORE], predictor.models_[CLEAN_SCORE].scores
    y = predictor.labels_[CLEAN_SCORE]
    ends = cv_plus(
        np.column_stack([b.predict_scores(predictor.statistics_) for b in blends]),
        scores(y),
        predictor.folds_,
        np.column_stack([b.predict_scores(new.to_numpy()) for b in blends]),
        0.9,
    )
    found = predictor.predict_interval(new, 0.9)
    assert list(found.columns) == [(CLEAN_SCORE, "low"), (CLEAN_SCORE, "high")]
    assert found.index.equals(new.index)
    for column, end in zip(found.columns, ends, strict=True):
        np.testing.assert_allclose(found[column], scores.back(end), rtol=1e-9)


def test_wider_at_a_higher_level(
    fitted: list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]],
) -> None:
    predictor, new, _ = fitted[0]
    narrow, wide = (predictor.predict_interval(new, level)[CLEAN_SCORE] for level in (0.8, 0.9))
    assert (wide["low"] < narrow["low"]).all()
    assert (narrow["high"] < wide["high"]).all()


def test_held_out_intervals_are_of_the_model_that_has_not_seen_the_feature(
    fitted: list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]],
) -> None:
    """As if all models said what that one says; other features are judged as ever."""
    predictor, new, _ = fitted[0]
    X = predictor.statistics_
    known = pd.DataFrame(X, predictor.features_, predictor.columns_)
    rows = pd.concat([new.iloc[:20], known.iloc[::-1]])
    found = predictor.predict_interval(rows, 0.9, held_out=True)
    plain = predictor.predict_interval(rows, 0.9)
    pd.testing.assert_frame_equal(found.iloc[:20], plain.iloc[:20], check_exact=True)
    assert not np.allclose(found.iloc[20:], plain.iloc[20:])

    blends, scores = predictor.fold_models_[CLEAN_SCORE], predictor.models_[CLEAN_SCORE].scores
    said = np.column_stack([b.predict_scores(X) for b in blends])
    own = said[np.arange(60), predictor.folds_]
    z = scores(predictor.labels_[CLEAN_SCORE])
    errors = np.sort(np.abs(z - own))
    half = errors[math.ceil(0.9 * 61) - 1]
    for end, sign in (("low", -1), ("high", 1)):
        expected = scores.back(own + sign * half)[::-1]
        np.testing.assert_allclose(found[CLEAN_SCORE, end].iloc[20:], expected, rtol=1e-9)


def test_held_out_intervals_ask_the_other_models_nothing(
    monkeypatch: pytest.MonkeyPatch,
    fitted: list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]],
) -> None:
    """Spoil what models say of rows they saw: nothing changes."""
    predictor, _, _ = fitted[0]
    known = pd.DataFrame(predictor.statistics_, predictor.features_, predictor.columns_)
    before = predictor.predict_interval(known, 0.9, held_out=True)
    for fold, blend in enumerate(predictor.fold_models_[CLEAN_SCORE]):
        saw = predictor.folds_ != fold
        said = np.where(saw, 1e3, blend.predict_scores(predictor.statistics_))
        monkeypatch.setattr(blend, "predict_scores", lambda X, said=said: said)
    after = predictor.predict_interval(known, 0.9, held_out=True)
    pd.testing.assert_frame_equal(after, before, check_exact=True)


@pytest.mark.parametrize(
    "level", [-0.1, 0.0, 1 / 61, 1 / 60, 1 - 1 / 60.5, 0.99, 1.0, 90, float("nan"), float("inf")]
)
def test_levels_that_cannot_be_are_refused(
    level: float, fitted: list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]]
) -> None:
    predictor, new, _ = fitted[0]
    message = (
        rf"level {level:g} is not possible with 60 labelled features, expected more than 0\.017 "
    )
    with pytest.raises(InputError, match=message):
        predictor.predict_interval(new, level)


@pytest.mark.parametrize("level", [1 / 59.9, 0.02, 0.98, 1 - 1 / 59.9])
def test_levels_that_can_just_be_are_taken(
    level: float, fitted: list[tuple[ModularityPredictor, pd.DataFrame, pd.Series]]
) -> None:
    predictor, new, _ = fitted[0]
    found = predictor.predict_interval(new.iloc[:5], level)[CLEAN_SCORE]
    assert np.isfinite(found.to_numpy()).all()
