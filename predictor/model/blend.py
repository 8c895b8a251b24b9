"""The model of one label: a ridge, trees on what it leaves, and a smooth kernel, blended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial.distance import cdist, pdist
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from .targets import keeps_tails
from .transforms import LogTransform, NormalScores, StandardScores

Array = NDArray[np.float64]

FOLDS = 5
STAGES = (30, 100, 300)
"""Numbers of trees after which the boosting is offered to the blend."""
CANDIDATES = ("ridge", *(f"ridge + {n} trees" for n in STAGES), "kernel")
LANDMARKS = 200
_ALPHAS = tuple(np.logspace(-1, 4, 11).tolist())
_KERNEL_ALPHAS = tuple(np.logspace(-2, 4, 13).tolist())
_LINEAR = 0.3  # weight of the linear part beside a kernel of variance 1 a statistic
_BOOSTING = {
    "objective": "regression",
    "extra_trees": True,
    "learning_rate": 0.03,
    "num_leaves": 7,
    "min_data_in_leaf": 15,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
_PATH = np.polynomial.legendre.leggauss(12)
_ROWS = 4096
_SUM_TO_ONE = 1e3


@dataclass(frozen=True)
class Line:
    """w t + b, on transformed statistics t."""

    coefficients: Array
    intercept: float

    def __call__(self, T: Array) -> Array:
        return np.asarray(T @ self.coefficients + self.intercept)


@dataclass(frozen=True)
class Kernel:
    """A line plus sum over landmarks m of w_m exp(-abs(t - t_m)^2 / (2 l^2)).

    A Gaussian process with a linear and an RBF kernel in Nystroem's approximation (Williams and
    Seeger 2001; scikit-learn's), its noise chosen by leave-one-out; l is the median distance of two
    training rows.
    """

    line: Line
    gamma: float
    landmarks: NDArray[np.int64]
    """Rows of the training table."""
    points: Array
    weights: Array

    def __call__(self, T: Array) -> Array:
        return self.line(T) + self._similarities(T) @ self.weights

    def _similarities(self, T: Array) -> Array:
        return np.asarray(np.exp(-self.gamma * cdist(T, self.points, "sqeuclidean")))

    def contributions(self, T: Array, start: Array) -> Array:
        """Integrated gradients from ``start``, ``[row, statistic]``: they sum to the difference.

        The integral along the straight line from ``start`` is by Gauss-Legendre with 12 points.

        Source: Sundararajan, Taly and Yan 2017 (arXiv:1703.01365), section 3.
        """
        step = T - start
        gradient = np.zeros_like(T)
        for node, weight in zip(*_PATH, strict=True):
            at = start + (node + 1) / 2 * step
            similar = self._similarities(at) * self.weights
            slope = -2 * self.gamma * (at * similar.sum(axis=1)[:, None] - similar @ self.points)
            gradient += weight / 2 * slope
        return np.asarray(step * (gradient + self.line.coefficients))


class Blend:
    """Predicts one label's scores from statistics.

    Candidates, each on :class:`LogTransform` statistics and :class:`NormalScores` of the label
    (:class:`StandardScores` where its tails are kept): a
    ridge (penalty by leave-one-out); it with 30, 100, 300 trees of LightGBM (extremely randomised,
    Geurts et al. 2006) on what it leaves; a :class:`Kernel`. The prediction is their weighted mean,
    the weights not negative and summing to 1, chosen by least squares on out-of-fold predictions
    within the training rows (stacked regressions: Breiman 1996). With few labels the ridge and the
    kernel carry it; trees gain with more.

    Args:
        seed: seeds inner folds, landmarks and boosting.
        tails: True fits the label in its own units, which keeps its tails
            (:func:`~cleansteer.predictor.model.targets.keeps_tails`).

    """

    def __init__(self, seed: int, tails: bool = False) -> None:
        self.seed = seed
        self.tails = tails

    def fit(self, X: Array, y: Array, weights: Array | None = None) -> Self:
        """Fit to statistics ``[feature, statistic]`` and a label ``[feature]``.

        Args:
            X: statistics.
            y: label.
            weights: weights of the candidates, where they are known already.

        """
        if weights is None:
            weights = choose_weights(inner_predictions(X, y, self.seed, self.tails), y, self.tails)
        self.weights = weights
        self.transform = LogTransform().fit(X)
        self.scores = fitted_scores(y, self.tails)
        T, z = self.transform(X), self.scores(y)
        self.ridge = _fit_line(T, z)
        self.booster = lightgbm.train(
            _BOOSTING | {"seed": self.seed},
            lightgbm.Dataset(T, z - self.ridge(T), params={"verbosity": -1}),
            num_boost_round=STAGES[-1],
        )
        self.kernel = _fit_kernel(T, z, self.seed)
        return self

    def candidates(self, X: Array) -> Array:
        """Scores that each candidate predicts, ``[feature, candidate]``."""
        T = self.transform(X)
        ridge = self.ridge(T)
        columns, so_far, done = [ridge], ridge, 0
        for stage in STAGES:
            so_far = so_far + self._trees(T, done, stage)
            columns.append(so_far)
            done = stage
        return np.column_stack([*columns, self.kernel(T)])

    def _trees(self, T: Array, first: int, last: int) -> Array:
        return np.asarray(
            self.booster.predict(
                T, start_iteration=first, num_iteration=last - first, num_threads=1
            )
        )

    def predict_scores(self, X: Array) -> Array:
        """Predicted scores, ``[feature]``."""
        return np.asarray(self.candidates(X) @ self.weights)

    def predict(self, X: Array) -> Array:
        """Predicted label, ``[feature]``."""
        return self.scores.back(self.predict_scores(X))

    def contributions(self, X: Array, start: Array) -> tuple[Array, float]:
        """What every statistic adds to the predicted score, and the score it is added to.

        Ridge and kernel are explained relative to the statistics ``start`` (a median feature), trees
        by their Shapley values (Lundberg et al. 2020), relative to the mean of the training rows. Row
        sums plus the base equal :meth:`predict_scores`.

        Returns:
            contributions ``[feature, statistic]`` and the base.

        """
        T, t = self.transform(X), self.transform(start[None])[0]
        linear = 1 - self.weights[-1]
        shares = linear * (T - t) * self.ridge.coefficients
        base = linear * float(self.ridge(t[None])[0])
        base += self.weights[-1] * float(self.kernel(t[None])[0])
        for first in range(0, len(T), _ROWS):
            rows = slice(first, first + _ROWS)
            shares[rows] += self.weights[-1] * self.kernel.contributions(T[rows], t)
        done = 0
        for i, stage in enumerate(STAGES):
            weight = self.weights[1 + i : -1].sum()
            if weight > 0 and len(T):
                shapley = np.asarray(
                    self.booster.predict(
                        T,
                        start_iteration=done,
                        num_iteration=stage - done,
                        pred_contrib=True,
                        num_threads=1,
                    )
                )
                shares += weight * shapley[:, :-1]
                base += weight * float(shapley[0, -1])
            done = stage
        return shares, base


def blended(seed: int, target: str | None = None) -> Callable[[Array, Array, Array], Array]:
    """Our model of a target, as a function of training rows, training labels and new rows."""
    tails = keeps_tails(target)
    return lambda X, y, new: Blend(seed, tails).fit(X, y).predict(new)


def fitted_scores(y: Array, tails: bool = False) -> NormalScores:
    """The map from labels to the scores that a model is fitted to."""
    return (StandardScores() if tails else NormalScores()).fit(y)


def inner_predictions(X: Array, y: Array, seed: int, tails: bool = False) -> Array:
    """Every candidate's out-of-fold scores, ``[feature, candidate]``."""
    predictions = np.empty((len(y), len(CANDIDATES)))
    unused = np.eye(len(CANDIDATES))[0]  # given, so that the parts choose no weights of their own
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(X):
        part = Blend(seed, tails).fit(X[train], y[train], unused)
        predictions[test] = part.candidates(X[test])
    return predictions


def choose_weights(predictions: Array, y: Array, tails: bool = False) -> Array:
    """Weights of the candidates: not negative, sum 1, least squares on the label's scores.

    Args:
        predictions: out-of-fold scores, ``[feature, candidate]``.
        y: label.
        tails: True where the label is fitted in its own units.

    """
    z = fitted_scores(y, tails)(y)
    n = predictions.shape[1]
    weights, _ = nnls(
        np.vstack([predictions, np.full((1, n), _SUM_TO_ONE)]), np.append(z, _SUM_TO_ONE)
    )
    total = weights.sum()
    return np.asarray(weights / total) if total > 0 else np.eye(n)[0]


def _fit_line(T: Array, z: Array) -> Line:
    model = RidgeCV(alphas=_ALPHAS).fit(T, z)
    return Line(np.asarray(model.coef_), float(model.intercept_))


def _fit_kernel(T: Array, z: Array, seed: int) -> Kernel:
    n = min(LANDMARKS, len(T))
    some = np.random.default_rng(seed).permutation(len(T))[: 2 * LANDMARKS]
    median = float(np.median(pdist(T[some])))
    gamma = 1 / (2 * median**2) if median > 0 else 1.0
    nystroem = Nystroem(gamma=gamma, n_components=n, random_state=seed).fit(T)
    size = np.sqrt(T.shape[1])
    model = RidgeCV(alphas=_KERNEL_ALPHAS).fit(
        np.hstack([_LINEAR * T, size * nystroem.transform(T)]), z
    )
    linear, curved = np.split(np.asarray(model.coef_), [T.shape[1]])
    return Kernel(
        line=Line(_LINEAR * linear, float(model.intercept_)),
        gamma=gamma,
        landmarks=np.asarray(nystroem.component_indices_),
        points=T[nystroem.component_indices_],
        weights=np.asarray(nystroem.normalization_.T @ curved) * size,
    )
