"""How well labels are predicted: out-of-fold skill of ours, the paper's ridge and the baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.threads import in_parallel
from .baselines import boosting, paper_ridge
from .resampling import bootstrap, resampled_spearman
from .scores import (
    RESAMPLES,
    Interval,
    out_of_fold,
    percentile_interval,
    spearman,
)
from .sets import BASELINES, predictor_sets

Array = NDArray[np.float64]

OURS = "ours"
NO_BASELINE = "none (no statistic of frequency or magnitude)"


@dataclass(frozen=True)
class Skill:
    """Out-of-fold Spearman for one target, by method: ``ours``, ``ridge`` (the paper's), ``boosting``
    (LightGBM alone) on all statistics, and the ridge on each baseline set.
    """

    target: str
    scores: dict[str, Interval]
    over_best_baseline: Interval
    """Ours minus the better baseline, on the same resampled features."""
    over_ridge: Interval
    """Ours minus the paper's ridge."""
    best_baseline: str
    n_features: int
    constant: bool
    """Whether the label is the same for all, so that there is nothing to predict."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for screening.json."""
        return asdict(self)


def validate(
    statistics: pd.DataFrame,
    labels: pd.DataFrame,
    predictions: Mapping[int, pd.DataFrame],
) -> dict[str, Skill]:
    """Skill of given out-of-fold predictions beside plain models on the same folds, by target.

    A score is the Spearman correlation of out-of-fold predictions with labels, averaged over
    repeats; intervals are 95 % percentile bootstraps over features (2,000 resamples, the same for
    all methods and repeats). They say how the score would differ for other features, given the
    fitted models; that other labels would have given other models, they do not see. Without any
    signal they cover 0 in 80 to 85 % instead of 95 %; hence the floor of shuffled labels in
    ``cleansteer validate``.

    Source: protocol.md, Predictor sets (arXiv:2606.08365).

    Args:
        statistics: ``[feature, statistic]`` of the labelled features.
        labels: theirs, in the same order.
        predictions: ours, ``[feature, target]``, by the seed of their folds.

    """
    if not statistics.index.equals(labels.index):
        raise ValueError("statistics and labels are not of the same features in the same order")
    sets = predictor_sets(statistics.columns)
    seeds = tuple(predictions)
    counts = bootstrap(len(labels), RESAMPLES, seeds[0])
    runs = {"ridge": (paper_ridge, sets["full_all"]), "boosting": (boosting, sets["full_all"])}
    runs |= {name: (paper_ridge, sets[name]) for name in BASELINES if sets[name]}
    values = {
        name: np.ascontiguousarray(statistics[columns].to_numpy(dtype=np.float64))
        for name, (_, columns) in runs.items()
    }
    skills: dict[str, Skill] = {}
    for target in predictions[seeds[0]].columns:
        y = labels[target].to_numpy(dtype=np.float64)
        repeats = {OURS: [predictions[seed][target].to_numpy() for seed in seeds]}
        for name, (fit_predict, _) in runs.items():
            repeats[name] = [out_of_fold(fit_predict, values[name], y, seed) for seed in seeds]
        resampled = {name: resampled_mean(found, y, counts) for name, found in repeats.items()}
        scores = {
            name: percentile_interval(
                float(np.mean([spearman(p, y) for p in found])), resampled[name]
            )
            for name, found in repeats.items()
        }
        there = [name for name in BASELINES if name in runs]
        best = max(there, key=lambda name: scores[name].value) if there else NO_BASELINE

        def lead(
            other: str,
            scores: dict[str, Interval] = scores,
            resampled: dict[str, Array] = resampled,
        ) -> Interval:
            difference = scores[OURS].value - scores[other].value
            return percentile_interval(difference, resampled[OURS] - resampled[other])

        skills[target] = Skill(
            target=target,
            scores=scores,
            over_best_baseline=lead(best) if there else scores[OURS],
            over_ridge=lead("ridge"),
            best_baseline=best,
            n_features=len(y),
            constant=bool(np.ptp(y) == 0),
        )
    return skills


def validate_sets(
    statistics: pd.DataFrame, labels: pd.DataFrame, seed: int
) -> dict[str, dict[str, Interval]]:
    """Skill of the paper's ridge on every predictor set of which anything is there, by set and label.

    Folds, resamples and intervals are those of :func:`validate`: the scores of ``full_all`` and of
    the baselines are the ones found there.

    Args:
        statistics: ``[feature, statistic]`` of the labelled features.
        labels: theirs, in the same order; every column is predicted.
        seed: of the folds and the resampling.

    """
    counts = bootstrap(len(labels), RESAMPLES, seed)
    sets = {name: there for name, there in predictor_sets(statistics.columns).items() if there}

    def score(job: tuple[str, str]) -> Interval:
        X = np.ascontiguousarray(statistics[sets[job[0]]].to_numpy(dtype=np.float64))
        y = labels[job[1]].to_numpy(dtype=np.float64)
        predicted = out_of_fold(paper_ridge, X, y, seed)
        return percentile_interval(spearman(predicted, y), resampled_spearman(predicted, y, counts))

    targets = [str(target) for target in labels]
    jobs = [(name, target) for name in sets for target in targets]
    found = dict(zip(jobs, in_parallel(score, jobs), strict=True))
    return {name: {target: found[name, target] for target in targets} for name in sets}


def resampled_mean(predictions: Sequence[Array], y: Array, counts: Array) -> Array:
    """Mean over repeats of Spearman's correlation with ``y``, in every resample."""
    return np.asarray(np.mean([resampled_spearman(p, y, counts) for p in predictions], axis=0))
