"""How well labels are predicted: out-of-fold skill of ours, the paper's ridge and the baselines."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.records import Interval, Skill
from ...core.records.skill import OURS
from ...core.threads import in_parallel
from ..model.baselines import boosting, paper_ridge
from ..model.sets import BASELINES, predictor_sets
from .resampling import bootstrap, resampled_spearman
from .scores import RESAMPLES, out_of_fold, out_of_fold_interval, spearman

Array = NDArray[np.float64]

NO_BASELINE = "none (no statistic of frequency or magnitude)"


def validate(
    statistics: pd.DataFrame,
    labels: pd.DataFrame,
    predictions: Mapping[int, pd.DataFrame],
) -> dict[str, Skill]:
    """Skill of given out-of-fold predictions beside plain models on the same folds, by target.

    A score is the Spearman correlation of out-of-fold predictions with labels, averaged over
    repeats. Intervals of scores and leads are 95 % bootstraps over features (2,000 resamples, the
    same for all methods and repeats), widened for what the bootstrap does not see
    (:func:`~cleansteer.predictor.evidence.scores.out_of_fold_interval`).

    Args:
        statistics: ``[feature, statistic]`` of the labelled features.
        labels: their labels, in the same order.
        predictions: our predictions, ``[feature, target]``, by the seed of their folds.

    Raises:
        ValueError: labels and statistics are of different features.

    Source: docs/protocol.md, Predictor sets (arXiv:2606.08365).

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
        resampled = {name: resampled_mean(of_name, y, counts) for name, of_name in repeats.items()}
        scores = {
            name: out_of_fold_interval(
                float(np.mean([spearman(p, y) for p in of_name])), resampled[name]
            )
            for name, of_name in repeats.items()
        }
        present = [name for name in BASELINES if name in runs]
        best = max(present, key=lambda name: scores[name].value) if present else NO_BASELINE

        def lead(
            other: str,
            scores: dict[str, Interval] = scores,
            resampled: dict[str, Array] = resampled,
        ) -> Interval:
            difference = scores[OURS].value - scores[other].value
            return out_of_fold_interval(difference, resampled[OURS] - resampled[other], bound=2.0)

        skills[target] = Skill(
            target=target,
            scores=scores,
            over_best_baseline=lead(best) if present else scores[OURS],
            over_ridge=lead("ridge"),
            best_baseline=best,
            n_features=len(y),
            constant=bool(np.ptp(y) == 0),
        )
    return skills


def validate_sets(
    statistics: pd.DataFrame, labels: pd.DataFrame, seed: int
) -> dict[str, dict[str, Interval]]:
    """Skill of the paper's ridge on every predictor set that is not empty, by set and label.

    Folds, resamples and intervals are those of :func:`validate`: the scores of ``full_all`` and of
    the baselines are the same.

    Args:
        statistics: ``[feature, statistic]`` of the labelled features.
        labels: their labels, in the same order; every column is predicted.
        seed: seeds the folds and the resampling.

    """
    counts = bootstrap(len(labels), RESAMPLES, seed)
    sets = {name: names for name, names in predictor_sets(statistics.columns).items() if names}

    def score(job: tuple[str, str]) -> Interval:
        X = np.ascontiguousarray(statistics[sets[job[0]]].to_numpy(dtype=np.float64))
        y = labels[job[1]].to_numpy(dtype=np.float64)
        predicted = out_of_fold(paper_ridge, X, y, seed)
        resampled = resampled_spearman(predicted, y, counts)
        return out_of_fold_interval(spearman(predicted, y), resampled)

    targets = [str(target) for target in labels]
    jobs = [(name, target) for name in sets for target in targets]
    scores = dict(zip(jobs, in_parallel(score, jobs), strict=True))
    return {name: {target: scores[name, target] for target in targets} for name in sets}


def resampled_mean(predictions: Iterable[Array], y: Array, counts: Array) -> Array:
    """Mean over repeats of Spearman's correlation with ``y``, in every resample."""
    return np.asarray(np.mean([resampled_spearman(p, y, counts) for p in predictions], axis=0))
