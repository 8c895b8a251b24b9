"""Prediction of residualised labels: what is left of a label after effect size and activation."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from ...core.records import Interval
from ..model.baselines import paper_ridge
from ..model.blend import FOLDS
from .resampling import bootstrap, resampled_spearman
from .scores import RESAMPLES, FitPredict, percentile_interval, spearman

Array = NDArray[np.float64]

CONTROL_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "paper": (
            "effect_l2",
            "effect_cv",
            "coefficient",
            "context_act_mean",
            "context_act_max",
        ),
        "replication": ("effect_l2", "final_act_mean", "final_act_freq"),
    }
)
"""Columns that a target is residualised on; ``coefficient`` is the intervention value.

Source: docs/protocol.md, Predictor sets (arXiv:2606.08365; Bishnoi 2026).
"""


def usable_controls(table: pd.DataFrame) -> dict[str, list[str]]:
    """For every control set, those of its columns that the table has and that are not constant.

    A constant control removes nothing, neither from a label nor from a rank: in mode ``add`` every
    feature has the same intervention value, and ``coefficient`` drops out. A set without any such
    column gives an empty list.

    Args:
        table: statistics and labels of the labelled features side by side, ``[feature, column]``.

    """
    return {
        name: [c for c in columns if c in table.columns and table[c].nunique(dropna=False) > 1]
        for name, columns in CONTROL_SETS.items()
    }


def residualised_skill(
    fit_predict: FitPredict, X: Array, y: Array, C: Array, seed: int, *, inside: bool = True
) -> float:
    """Mean over 5 shuffled folds of the Spearman correlation, in the held-out fold, of predictions
    with what the controls leave of the label.

    In every fold the nuisance model, ridge (alpha 1, standardised), is fitted to the training rows'
    controls and labels. The target is label minus its prediction, in training and held-out rows
    alike; ``fit_predict`` learns it from the training rows' statistics. Without controls the nuisance
    is the training rows' mean. A fold in which predictions or targets are constant counts 0.

    Args:
        fit_predict: the model whose skill is measured.
        X: its statistics, ``[feature, statistic]``.
        y: label, ``[feature]``.
        C: controls, ``[feature, control]``.
        seed: seeds the folds.
        inside: False fits the nuisance once, outside the folds, by ordinary least squares on all
            rows, as the replication did: to compare with its figures. The held-out rows' targets then
            come from a model that has seen their labels.

    Raises:
        ValueError: the rows of ``X``, ``y`` and ``C`` differ in number, or are fewer than 5.

    Source: docs/protocol.md, Predictor sets (arXiv:2606.08365); the score is the replication's (Bishnoi
    2026; docs/protocol.md, Published figures).

    """
    held_out = _held_out(fit_predict, X, y, C, seed, inside)
    return float(np.mean([spearman(predicted, target) for predicted, target in held_out]))


def residualised_interval(
    fit_predict: FitPredict, X: Array, y: Array, C: Array, seed: int, *, inside: bool = True
) -> Interval:
    """:func:`residualised_skill` with a 95 % percentile bootstrap over features within the folds.

    In each of 2,000 resamples every fold's held-out features are drawn anew with replacement and the
    score is taken again. The interval covers chance in the choice of scored features. It takes the
    fitted models, those of the nuisance included, and the division into folds as given: it does not
    cover how they would vary with other training features, nor what the held-out rows' labels gave to
    a nuisance fitted outside the folds.

    Arguments, errors and source as there; the seed is also of the resampling.
    """
    held_out = _held_out(fit_predict, X, y, C, seed, inside)
    resampled = [
        resampled_spearman(predicted, target, bootstrap(len(target), RESAMPLES, [seed, fold]))
        for fold, (predicted, target) in enumerate(held_out)
    ]
    value = np.mean([spearman(predicted, target) for predicted, target in held_out])
    return percentile_interval(float(value), np.mean(resampled, axis=0))


def _held_out(
    fit_predict: FitPredict, X: Array, y: Array, C: Array, seed: int, inside: bool
) -> list[tuple[Array, Array]]:
    """Prediction and target of the held-out rows, fold by fold."""
    if not len(X) == len(y) == len(C):
        raise ValueError(f"{len(X)} rows of statistics, {len(y)} labels, {len(C)} rows of controls")
    held_out = []
    target = y if inside else y - _least_squares(C, y)
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(X):
        learnt, asked = target[train], target[test]
        if inside:
            learnt = learnt - _nuisance(C[train], y[train], C[train])
            asked = asked - _nuisance(C[train], y[train], C[test])
        held_out.append((fit_predict(X[train], learnt, X[test]), asked))
    return held_out


def _nuisance(C: Array, y: Array, new: Array) -> Array:
    return paper_ridge(C, y, new) if C.shape[1] else np.full(len(new), y.mean())


def _least_squares(C: Array, y: Array) -> Array:
    """Fitted values of an ordinary least-squares fit with an intercept."""
    scale = np.where(np.ptp(C, axis=0) > 0, C.std(axis=0), 1.0)
    design = np.column_stack([np.ones(len(y)), (C - C.mean(axis=0)) / scale])
    return np.asarray(design @ np.linalg.lstsq(design, y, rcond=None)[0])
