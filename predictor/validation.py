"""How well labels are predicted: out-of-fold skill of ours, the paper's ridge and the baselines."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from sklearn.model_selection import KFold

from .models import AnchoredBoosting, paper_ridge
from .sets import BASELINES, predictor_sets
from .targets import CLEAN_SCORE, TARGETS, clean_score

Array = NDArray[np.float64]
FitPredict = Callable[[Array, Array, Array], Array]

FOLDS = 5
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile-bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


def percentile_interval(value: float, resampled: Array) -> Interval:
    """The 95 % percentile interval of a bootstrapped figure."""
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def out_of_fold(fit_predict: FitPredict, X: Array, y: Array, seed: int) -> Array:
    """Predictions for every row by models that have not seen it: 5 folds, shuffled, seeded."""
    predictions = np.empty(len(y))
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(X):
        predictions[test] = fit_predict(X[train], y[train], X[test])
    return predictions


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


def bootstrapped_spearman(a: Array, b: Array, draws: NDArray[np.int64]) -> Array:
    """Spearman's correlation in every resample, ``draws`` [resample, n] of row numbers."""
    x, y = rankdata(a[draws], axis=1), rankdata(b[draws], axis=1)
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.asarray((x * y).sum(axis=1) / np.maximum(norm, 1e-300))


def anchored(seed: int) -> FitPredict:
    """Ours, as a function of training rows, training labels and new rows."""
    return lambda X, y, new: AnchoredBoosting(seed).fit(X, y).predict(new)


@dataclass(frozen=True)
class Skill:
    """Out-of-fold Spearman for one target: ours, the paper's ridge, the baselines."""

    target: str
    scores: dict[str, Interval]
    over_best_baseline: Interval
    """Ours minus the better baseline, on the same resampled features."""
    best_baseline: str
    n_features: int

    def to_json(self) -> dict[str, Any]:
        """Plain data for screening.json."""
        return asdict(self)


@dataclass(frozen=True)
class Validation:
    """Skill for every target, and our out-of-fold predictions."""

    skills: dict[str, Skill]
    predictions: pd.DataFrame
    """``[feature, target]``, every row predicted by a model that has not seen its label."""


def validate(statistics: pd.DataFrame, labels: pd.DataFrame, seed: int) -> Validation:
    """Cross-validate ours, the paper's ridge on all statistics, and the two baselines.

    Each is scored by Spearman of its out-of-fold predictions with the labels; the intervals are 95 %
    percentile bootstraps over features (2,000 resamples), the same resamples for all.

    Source: protocol.md, Predictor sets (arXiv:2606.08365).

    Args:
        statistics: ``[feature, statistic]`` of the labelled features.
        labels: their labels, with the targets among the columns.
        seed: of folds, boosting and resampling.

    """
    if not statistics.index.equals(labels.index):
        raise ValueError("statistics and labels are not of the same features in the same order")
    sets = predictor_sets(statistics.columns)
    generator = np.random.default_rng(seed)
    draws = generator.integers(len(labels), size=(RESAMPLES, len(labels)))
    skills: dict[str, Skill] = {}
    ours: dict[str, Array] = {}
    for target in TARGETS:
        y = labels[target].to_numpy(dtype=np.float64)

        def predicted(name: str, fit_predict: FitPredict, y: Array = y) -> Array:
            X = statistics[sets[name]].to_numpy(dtype=np.float64)
            return out_of_fold(fit_predict, X, y, seed)

        predictions = {
            "ours": predicted("full_all", anchored(seed)),
            "ridge": predicted("full_all", paper_ridge),
            **{name: predicted(name, paper_ridge) for name in BASELINES},
        }
        resampled = {name: bootstrapped_spearman(p, y, draws) for name, p in predictions.items()}
        scores = {
            name: percentile_interval(spearman(p, y), resampled[name])
            for name, p in predictions.items()
        }
        best = max(BASELINES, key=lambda name: scores[name].value)
        skills[target] = Skill(
            target=target,
            scores=scores,
            over_best_baseline=percentile_interval(
                scores["ours"].value - scores[best].value, resampled["ours"] - resampled[best]
            ),
            best_baseline=best,
            n_features=len(y),
        )
        ours[target] = predictions["ours"]
    return Validation(skills, pd.DataFrame(ours, index=labels.index))


def rescored(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels with ``clean_score`` standardised over these rows alone (no leak from others)."""
    return labels.assign(**{CLEAN_SCORE: clean_score(labels)})
