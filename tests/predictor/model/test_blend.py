"""The blend: what it may depend on, what its parts add up to, and which part it leans on."""

from collections.abc import Callable

import numpy as np
import pytest
import synthetic
from cleansteer.predictor.evidence.scores import spearman
from cleansteer.predictor.model.baselines import boosting, paper_ridge
from cleansteer.predictor.model.blend import (
    CANDIDATES,
    FOLDS,
    STAGES,
    Blend,
    Kernel,
    Line,
    blended,
    choose_weights,
    inner_predictions,
)
from cleansteer.predictor.model.transforms import LogTransform, NormalScores
from scipy.integrate import quad
from scipy.spatial.distance import pdist
from scipy.stats import norm, ttest_1samp
from sklearn.gaussian_process.kernels import RBF

N = 90
SIGNIFICANT = 1e-3  # seeds are fixed, so what passes once passes always
SUMMING = 1e-9
"""Rows of contributions against predictions: 12 nodes, and sums in another order."""
EQUAL = np.full(len(CANDIDATES), 1 / len(CANDIDATES))
FORCED = {name: np.eye(len(CANDIDATES))[i] for i, name in enumerate(CANDIDATES)} | {
    "equal": EQUAL,
    "ridge and most trees": np.array([0.3, 0.0, 0.0, 0.7, 0.0]),
    "few trees and kernel": np.array([0.0, 0.6, 0.0, 0.0, 0.4]),
}


def values(n: int = N, seed: int = 1, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    table = synthetic.statistics(n, seed)
    return table.to_numpy(), synthetic.labels(table, noise, seed)["clean_score"].to_numpy()


def fresh(n: int = 50) -> np.ndarray:
    return synthetic.statistics(n, seed=2).to_numpy()


@pytest.fixture(scope="module")
def blend() -> Blend:
    """Of equal parts."""
    return Blend(0).fit(*values(), EQUAL)


def test_predictions_do_not_depend_on_the_other_rows(blend: Blend) -> None:
    order = np.random.default_rng(0).permutation(50)
    expected = blend.predict_scores(fresh())
    moved = blend.predict_scores(fresh()[order])
    np.testing.assert_allclose(moved, expected[order], rtol=1e-12)
    alone = [blend.predict_scores(row[None])[0] for row in fresh()]
    np.testing.assert_allclose(alone, expected, rtol=1e-12)


def test_same_seed_same_blend_other_seed_another() -> None:
    one, again, other = (Blend(seed).fit(*values()) for seed in (0, 0, 1))
    assert np.array_equal(one.weights, again.weights)
    assert np.array_equal(one.candidates(fresh()), again.candidates(fresh()))
    assert not np.allclose(one.candidates(fresh())[:, 1], other.candidates(fresh())[:, 1])
    assert spearman(one.predict(fresh()), other.predict(fresh())) > 0.9


@pytest.mark.parametrize(
    "rising", [np.exp, np.cbrt, lambda y: 1000 * y - 7], ids=["exp", "cbrt", "line"]
)
def test_only_the_order_of_labels_counts(rising: Callable[[np.ndarray], np.ndarray]) -> None:
    X, y = values()
    plain, other = Blend(0).fit(X, y), Blend(0).fit(X, rising(y))
    np.testing.assert_allclose(other.weights, plain.weights, atol=1e-12)
    np.testing.assert_allclose(
        other.predict_scores(fresh()), plain.predict_scores(fresh()), rtol=1e-12
    )
    assert spearman(other.predict(fresh()), plain.predict(fresh())) == pytest.approx(1)


@pytest.mark.parametrize("unit", [2.0**-20, 4.0, 2.0**30])
def test_statistics_have_no_unit(unit: float) -> None:
    """Powers of two scale without rounding, so that every split stays where it was."""
    X, y = values()
    one, other = Blend(0).fit(X, y, EQUAL), Blend(0).fit(unit * X, y, EQUAL)
    np.testing.assert_allclose(other.candidates(unit * fresh()), one.candidates(fresh()), rtol=1e-9)


def test_a_row_outside_the_range_predicts_as_the_clipped_one(blend: Blend) -> None:
    X, _ = values()
    for scale in (10.0, 1e6, 1e30):
        outside = fresh() + scale * np.random.default_rng(0).normal(size=fresh().shape)
        clipped = np.clip(outside, X.min(axis=0), X.max(axis=0))
        assert np.array_equal(blend.candidates(outside), blend.candidates(clipped))


def test_the_ridge_is_one_whatever_the_order_of_rows_and_columns(blend: Blend) -> None:
    X, y = values()
    rows = np.random.default_rng(0).permutation(N)
    columns = np.random.default_rng(1).permutation(X.shape[1])
    moved = Blend(0).fit(X[np.ix_(rows, columns)], y[rows], EQUAL)
    np.testing.assert_allclose(moved.ridge.coefficients, blend.ridge.coefficients[columns])
    assert moved.ridge.intercept == pytest.approx(blend.ridge.intercept, abs=1e-9)


def test_the_ridge_is_one_of_scores_on_logarithms(blend: Blend) -> None:
    """T'(z - Tw - b) = alpha w for one alpha, and residuals add up to 0: b is the intercept."""
    X, y = values()
    T, z = LogTransform().fit(X)(X), NormalScores().fit(y)(y)
    residual = z - blend.ridge(T)
    assert residual.mean() == pytest.approx(0, abs=1e-12)
    alphas = T.T @ residual / blend.ridge.coefficients
    np.testing.assert_allclose(alphas, alphas[0], rtol=1e-6)
    assert alphas[0] > 0


def test_candidates_are_the_ridge_with_more_and_more_trees_and_the_kernel(blend: Blend) -> None:
    T = blend.transform(fresh())
    found = blend.candidates(fresh())
    assert found.shape == (50, len(CANDIDATES)) == (50, len(STAGES) + 2)
    ridge = blend.ridge(T)
    np.testing.assert_allclose(found[:, 0], ridge)
    for column, n in enumerate(STAGES, 1):
        trees = blend.booster.predict(T, num_iteration=n)
        np.testing.assert_allclose(found[:, column], ridge + trees, atol=1e-12)
    np.testing.assert_allclose(found[:, -1], blend.kernel(T))
    np.testing.assert_allclose(blend.predict_scores(fresh()), found.mean(axis=1), atol=1e-12)
    np.testing.assert_array_equal(
        blend.predict(fresh()), blend.scores.back(blend.predict_scores(fresh()))
    )


@pytest.mark.parametrize("name", FORCED)
def test_contributions_and_base_sum_to_the_prediction(name: str, blend: Blend) -> None:
    forced = Blend(0)
    vars(forced).update(vars(blend) | {"weights": FORCED[name]})
    X, _ = values()
    for start in (np.median(X, axis=0), X[3], np.zeros(X.shape[1])):
        for rows in (fresh(), X, fresh()[:1]):
            found, base = forced.contributions(rows, start)
            assert found.shape == rows.shape
            np.testing.assert_allclose(
                found.sum(axis=1) + base, forced.predict_scores(rows), atol=SUMMING
            )


def test_the_typical_feature_owes_nothing_to_ridge_and_kernel(blend: Blend) -> None:
    start = np.median(values()[0], axis=0)
    for name in ("ridge", "kernel"):
        forced = Blend(0)
        vars(forced).update(vars(blend) | {"weights": FORCED[name]})
        found, base = forced.contributions(start[None], start)
        np.testing.assert_allclose(found, 0, atol=1e-12)
        assert base == pytest.approx(forced.predict_scores(start[None])[0])


@pytest.mark.parametrize("constant", [0.0, 0.1, 7.0])
def test_a_statistic_that_is_the_same_everywhere_says_nothing(constant: float) -> None:
    X, y = values()
    wider = np.column_stack([X, np.full(N, constant)])
    model = Blend(0).fit(wider, y, EQUAL)
    new = np.column_stack([fresh(), np.random.default_rng(0).normal(size=50)])
    found, _ = model.contributions(new, np.median(wider, axis=0))
    np.testing.assert_allclose(found[:, -1], 0, atol=1e-12)
    same = np.column_stack([fresh(), np.full(50, constant)])
    np.testing.assert_allclose(model.predict_scores(new), model.predict_scores(same), atol=1e-12)
    plain = Blend(0).fit(X, y, EQUAL)
    np.testing.assert_allclose(model.candidates(new)[:, 0], plain.candidates(fresh())[:, 0])


@pytest.mark.parametrize("value", [0.0, 3.5, -1e6])
def test_a_constant_label_is_predicted_as_it_is(value: float) -> None:
    model = Blend(0).fit(values()[0], np.full(N, value))
    assert (model.predict(fresh()) == value).all()
    assert model.weights.sum() == pytest.approx(1)


def test_statistics_that_are_all_the_same_predict_the_median() -> None:
    y = values()[1][:89]
    predicted = Blend(0).fit(np.ones((89, 3)), y).predict(np.ones((2, 3)))
    np.testing.assert_allclose(predicted, np.median(y), atol=1e-6)


def any_kernel(seed: int = 0, n: int = 20, d: int = 3) -> Kernel:
    generator = np.random.default_rng(seed)
    return Kernel(
        line=Line(generator.normal(size=d), 0.7),
        gamma=0.1,
        landmarks=np.arange(n),
        points=generator.normal(size=(n, d)),
        weights=generator.normal(size=n),
    )


def test_a_kernel_is_its_formula() -> None:
    kernel = any_kernel()
    T = np.random.default_rng(1).normal(size=(10, 3))
    rbf = RBF(length_scale=np.sqrt(1 / (2 * kernel.gamma)))
    expected = T @ kernel.line.coefficients + 0.7 + rbf(T, kernel.points) @ kernel.weights
    np.testing.assert_allclose(kernel(T), expected)


def test_contributions_of_a_kernel_are_path_integrals() -> None:
    """Of its slope by finite differences, from start to row, one statistic after another."""
    kernel = any_kernel()
    T = np.random.default_rng(1).normal(size=(4, 3))
    start = np.array([0.3, -0.2, 0.5])
    found = kernel.contributions(T, start)
    step = 1e-5

    def slope(at: np.ndarray, statistic: int) -> float:
        change = step * np.eye(3)[statistic]
        ahead, behind = kernel(np.stack([at + change, at - change]))
        return float((ahead - behind) / (2 * step))

    for row, statistic in np.ndindex(T.shape):
        way = T[row] - start
        integral, _ = quad(lambda a: slope(start + a * way, statistic), 0, 1)  # noqa: B023
        assert found[row, statistic] == pytest.approx(way[statistic] * integral, abs=1e-7)


def test_a_fitted_kernel_is_kernel_ridge_where_every_row_is_a_landmark(blend: Blend) -> None:
    """C K r = alpha C f for one alpha: r residuals, C centres, K = 0.3^2 T T' + d exp(-...)."""
    X, y = values()
    T, z = blend.transform(X), NormalScores().fit(y)(y)
    length = np.median(pdist(T))
    K = 0.09 * T @ T.T + T.shape[1] * RBF(length_scale=length)(T)
    fitted = blend.kernel(T)
    pulled = K @ (z - fitted)
    alpha = np.std(pulled) / np.std(fitted)
    np.testing.assert_allclose(
        pulled - pulled.mean(), alpha * (fitted - fitted.mean()), atol=1e-4 * np.std(pulled)
    )
    assert (z - fitted).mean() == pytest.approx(0, abs=1e-9)


def test_a_kernel_goes_near_what_is_smooth() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 2))
    y = X[:, 0] ** 2 + X[:, 1] ** 2
    predicted = Blend(0).fit(X[:200], y[:200], FORCED["kernel"]).predict(X[200:])
    assert spearman(predicted, y[200:]) > 0.9
    assert abs(spearman(paper_ridge(X[:200], y[:200], X[200:]), y[200:])) < 0.3


def test_the_trees_add_what_is_not_smooth() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(700, 4))
    y = X[:, 0] * np.sign(X[:, 1]) + 0.1 * generator.normal(size=700)
    train, test = slice(500), slice(500, None)
    ours = Blend(0).fit(X[train], y[train], FORCED[CANDIDATES[3]]).predict(X[test])
    assert spearman(ours, y[test]) > 0.6
    assert abs(spearman(paper_ridge(X[train], y[train], X[test]), y[test])) < 0.3


def test_more_labels_help() -> None:
    gains = []
    for seed in range(14):
        X, y = values(330, seed, 1.5)
        few, many = (blended(seed)(X[:n], y[:n], X[130:]) for n in (25, 130))
        gains.append(spearman(many, y[130:]) - spearman(few, y[130:]))
    assert ttest_1samp(gains, 0.0, alternative="greater").pvalue < SIGNIFICANT


def test_weights_are_of_out_of_fold_predictions() -> None:
    X, y = values()
    model = Blend(0).fit(X, y)
    assert np.array_equal(model.weights, choose_weights(inner_predictions(X, y, 0), y))


@pytest.mark.parametrize("row", [0, 17, 63])
def test_an_out_of_fold_prediction_does_not_see_its_own_label(row: int) -> None:
    X, y = values()
    wrong = y.copy()
    wrong[row] += 1000
    before, after = inner_predictions(X, y, 0), inner_predictions(X, wrong, 0)
    assert np.array_equal(after[row], before[row])
    assert (after != before).any(axis=1).sum() == N - N // FOLDS, "the other folds see it"


@pytest.mark.parametrize("perfect", range(len(CANDIDATES)))
def test_the_perfect_candidate_is_chosen(perfect: int) -> None:
    generator = np.random.default_rng(perfect)
    y = generator.lognormal(size=N)
    predictions = generator.normal(size=(N, len(CANDIDATES)))
    predictions[:, perfect] = norm.ppf((np.argsort(np.argsort(y)) + 0.5) / N)
    weights = choose_weights(predictions, y)
    np.testing.assert_allclose(weights, np.eye(len(CANDIDATES))[perfect], atol=1e-4)


def test_a_mixture_is_found() -> None:
    generator = np.random.default_rng(0)
    parts = generator.normal(size=(2000, 3))
    truth = np.array([0.2, 0.5, 0.3])
    mixed = parts @ truth
    scaled = parts / mixed.std()
    np.testing.assert_allclose(choose_weights(scaled, mixed), truth, atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_weights_never_leave_the_simplex_and_no_mixture_is_better(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for scale in (0.0, 1e-6, 1.0, 30.0):
        y = generator.normal(size=40)
        predictions = scale * generator.normal(size=(40, 5)) - scale * y[:, None] * (seed % 2)
        weights = choose_weights(predictions, y)
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1)
        z = NormalScores().fit(y)(y)
        best = ((predictions @ weights - z) ** 2).sum()
        for other in generator.dirichlet(np.ones(5), 200):
            assert best <= ((predictions @ other - z) ** 2).sum() * (1 + 1e-3)


def test_blended_is_a_blend_as_a_function() -> None:
    X, y = values(40)
    assert np.array_equal(blended(3)(X, y, fresh()), Blend(3).fit(X, y).predict(fresh()))


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_ridge_is_its_formula(seed: int) -> None:
    X, y = values(seed=seed)
    new = fresh()
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    weights = np.linalg.solve(Z.T @ Z + np.eye(X.shape[1]), Z.T @ (y - y.mean()))
    expected = (new - X.mean(axis=0)) / X.std(axis=0) @ weights + y.mean()
    np.testing.assert_allclose(paper_ridge(X, y, new), expected, rtol=1e-9)


def test_boosting_alone_sees_the_order_of_statistics_and_the_unit_of_labels() -> None:
    X, y = values()
    plain = boosting(X, y, fresh())
    assert np.array_equal(boosting(X, y, fresh()), plain)
    np.testing.assert_allclose(boosting(8 * X, y, 8 * fresh()), plain, rtol=1e-9)
    np.testing.assert_allclose(boosting(X, 4 * y, fresh()), 4 * plain, rtol=1e-6)
    assert (
        spearman(
            plain, synthetic.labels(synthetic.statistics(50, 2), 0, 1)["clean_score"].to_numpy()
        )
        > 0.2
    )
