"""The predictor made small: fewer trees and resamples, no inner folds, for tests of what is around it."""

import gc

import numpy as np
import pytest
from cleansteer.predictor.evidence import partial, residuals, validation
from cleansteer.predictor.model import baselines, blend
from cleansteer.predictor.model.transforms import NormalScores
from scipy.spatial.distance import cdist


def all_alike(X: np.ndarray, y: np.ndarray, seed: int, tails: bool = False) -> np.ndarray:
    """In place of inner folds: every candidate as good as the next, so the first is taken."""
    return np.repeat(NormalScores().fit(y)(y)[:, None], len(blend.CANDIDATES), axis=1)


class OneRidge:
    """In place of ridge by scikit-learn, which takes longer to check its arguments than to fit: closed
    form, with the middle penalty where there are several.
    """

    def __init__(self, alphas: tuple[float, ...] = (), alpha: float | None = None) -> None:
        self.alpha = sorted(alphas)[len(alphas) // 2] if alpha is None else alpha

    def fit(self, X: np.ndarray, y: np.ndarray) -> "OneRidge":
        centred, mean = X - X.mean(axis=0), y.mean()
        gram = centred.T @ centred + self.alpha * np.eye(X.shape[1])
        self.coef_ = np.linalg.solve(gram, centred.T @ (y - mean))
        self.intercept_ = float(mean - X.mean(axis=0) @ self.coef_)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return X @ self.coef_ + self.intercept_


class Scaler:
    """In place of scikit-learn's, for the same reason."""

    def fit(self, X: np.ndarray) -> "Scaler":
        scale = X.std(axis=0)
        self.mean, self.scale = X.mean(axis=0), np.where(scale > 1e-12, scale, 1.0)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean) / self.scale


class Landmarks:
    """In place of scikit-learn's Nystroem, for the same reason."""

    def __init__(self, gamma: float, n_components: int, random_state: int) -> None:
        self.gamma, self.n, self.seed = gamma, n_components, random_state

    def fit(self, T: np.ndarray) -> "Landmarks":
        self.component_indices_ = np.random.default_rng(self.seed).permutation(len(T))[: self.n]
        self.points = T[self.component_indices_]
        values, vectors = np.linalg.eigh(self.kernel(self.points))
        self.normalization_ = (vectors / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
        return self

    def kernel(self, T: np.ndarray) -> np.ndarray:
        return np.exp(-self.gamma * cdist(T, self.points, "sqeuclidean"))

    def transform(self, T: np.ndarray) -> np.ndarray:
        return self.kernel(T) @ self.normalization_.T


def cheapen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blend, "STAGES", (3, 6, 10))
    monkeypatch.setattr(blend, "inner_predictions", all_alike)
    monkeypatch.setattr(blend, "LANDMARKS", 10)
    monkeypatch.setattr(blend, "RidgeCV", OneRidge)
    monkeypatch.setattr(blend, "Nystroem", Landmarks)
    monkeypatch.setattr(baselines, "Ridge", OneRidge)
    monkeypatch.setattr(baselines, "StandardScaler", Scaler)
    monkeypatch.setattr(baselines, "_TREES", 20)
    # multipletests collects garbage in every call, which takes longer than all else here.
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    for module in (partial, residuals, validation):
        monkeypatch.setattr(module, "RESAMPLES", 100)
