"""The ranking of all features."""

from collections.abc import Set as AbstractSet

import numpy as np
import pandas as pd

from ...core.errors import InputError
from .checks import finite_values
from .forecasts import forecasts_of, score_reasons
from .intervals import measured_interval
from .models import INTERVAL_LEVEL, ModularityPredictor
from .sets import RESPONSE
from .targets import ABSOLUTE, CLEAN_SCORE, Scheme, bounds, scheme_of
from .transforms import rank_normalised

TOKENS = ("direct_top_tokens", "peak_top_tokens")
"""Columns of the feature table that a ranking has too: what a feature promotes, and where it fires."""
COLUMNS = ("feature", "rank", "predicted_clean_score", "measured_clean_score", "eligible")
"""Columns that every ranking has."""


def rank_features(
    features: pd.DataFrame,
    labels: pd.DataFrame,
    predictor: ModularityPredictor,
    eligible: AbstractSet[int],
) -> pd.DataFrame:
    """All features by falling predicted clean score; of ties, the lower index first.

    A labelled feature's prediction and interval come from a model that has not seen its label, so
    that predicted and measured may be compared in every row. ``predicted_clean_score_low`` and
    ``_high``, and those of both axes, are conformal intervals of 90 %
    (:meth:`~cleansteer.predictor.model.models.ModularityPredictor.predict_interval`). They hold for
    features like the labelled ones; ``eligible`` marks those: their firing rate lies in the range
    that is labelled. ``reasons`` are the statistics that move the predicted clean score most.

    Args:
        features: feature table: a column ``feature``, the statistics, ``direct_top_tokens``.
        labels: labels of the labelled features, indexed by feature.
        predictor: fitted on these features and labels.
        eligible: features that are like the labelled ones.

    """
    indexed = features.set_index("feature")
    predictions = predictor.predict(indexed)
    known = predictor.out_of_fold_
    targets = list(scheme_of(predictor.targets).targets)
    predictions.loc[known.index, targets] = known[targets]
    judged = [t for t in scheme_of(targets).judged if t in predictor.targets]
    intervals = predictor.predict_interval(indexed, INTERVAL_LEVEL, targets=judged, held_out=True)
    reasons = predictor.reasons(indexed, CLEAN_SCORE)
    for target in judged:
        for end in ("low", "high"):
            predictions[f"{target}_{end}"] = intervals[target, end]
    return _ranked(indexed, labels, predictions, reasons, eligible)


def rank_by_others(
    features: pd.DataFrame, predictor: ModularityPredictor, eligible: AbstractSet[int]
) -> pd.DataFrame:
    """The same table by a predictor that was fitted on other settings
    (:func:`~cleansteer.predictor.evidence.pooling.fit_pooled`).

    Nothing is measured, statistics are ranks among the eligible features, and predictions are normal
    scores, without intervals, since no label of this setting tells how large the errors are.

    Args:
        features: feature table: a column ``feature``, the statistics, ``direct_top_tokens``.
        predictor: fitted on ranks of other settings.
        eligible: features within which the ranks are taken.

    Raises:
        InputError: the predictor was fitted on one setting's own values, or not on clean_score.

    """
    if CLEAN_SCORE not in predictor.targets:
        raise InputError(
            f"the predictor knows {', '.join(predictor.targets)}, expected {CLEAN_SCORE} among them, by "
            "which features are ranked; fit one on runs or tables that have it"
        )
    if predictor.scale != "ranks":
        raise InputError(
            "the predictor was fitted on the values of one setting, which mean something else in "
            "another; fit one on several runs (cleansteer fit RUN RUN... --out DIR)"
        )
    indexed = features.set_index("feature")
    finite_values(indexed, predictor.columns_, "statistics")
    statistics = indexed[predictor.columns_]
    ranks = rank_normalised(statistics, statistics[statistics.index.isin(eligible)])
    predictions = predictor.predict(ranks)
    reasons = predictor.reasons(ranks, CLEAN_SCORE)
    scheme = scheme_of(predictor.targets)
    ends = [f"{target}_{end}" for target in scheme.judged for end in ("low", "high")]
    none = pd.DataFrame(columns=list(scheme.targets), dtype=np.float64)
    predictions = predictions.reindex(columns=[*scheme.targets, *ends])
    return _ranked(indexed, none, predictions, reasons, eligible)


def rank_by_response(
    features: pd.DataFrame, eligible: AbstractSet[int], scheme: Scheme = ABSOLUTE
) -> pd.DataFrame:
    """The same table by linear response alone: predictions are the columns ``response_X``.

    Nothing is fitted and nothing is measured, so that there are no intervals. ``reasons`` are what the
    forecast clean score adds up (:func:`~cleansteer.predictor.model.forecasts.score_reasons`).

    Args:
        features: feature table: a column ``feature``, the statistics, linear response among them,
            ``direct_top_tokens``.
        eligible: features that the clean score is standardised over.
        scheme: which labels make up the clean score and stand for the axes.

    Raises:
        InputError: a forecast is missing or not finite.

    """
    indexed = features.set_index("feature")
    forecasts = forecasts_of(indexed)
    finite_values(
        forecasts, [name for name in scheme.targets if name in forecasts], "linear response"
    )
    ends = [f"{target}_{end}" for target in scheme.judged for end in ("low", "high")]
    none = pd.DataFrame(columns=list(scheme.targets), dtype=np.float64)
    predictions = forecasts.reindex(columns=[*scheme.targets, *ends])
    reasons = score_reasons(forecasts, eligible, scheme, RESPONSE)
    return _ranked(indexed, none, predictions, reasons, eligible)


def rank_by_measurement(
    features: pd.DataFrame,
    labels: pd.DataFrame,
    halves: tuple[pd.DataFrame, pd.DataFrame],
    eligible: AbstractSet[int],
    scheme: Scheme = ABSOLUTE,
) -> pd.DataFrame:
    """The same table by labels of every feature: predictions are the labels themselves.

    Intervals of 90 % are of the measurement: what the mean over all such contexts may be
    (:func:`measured_interval`). ``reasons`` are what the clean score adds up. A feature without labels
    is last, and not eligible.

    Args:
        features: feature table: a column ``feature``, ``final_act_freq``, ``direct_top_tokens``.
        labels: of every measured feature, indexed by feature, with ``clean_score``, which is
            standardised over the eligible ones.
        halves: labels of the eligible ones on two disjoint halves of their contexts, with
            ``clean_score``, indexed alike.
        eligible: features that the clean score is standardised over.
        scheme: which labels make up the clean score and stand for the axes.

    Source: docs/protocol.md, Every feature labelled.

    """
    indexed = features.set_index("feature")
    predictions = labels.reindex(index=indexed.index, columns=list(scheme.targets))
    for target in scheme.judged:
        known, first, second = (
            table.loc[halves[0].index, target].to_numpy(dtype=np.float64)
            for table in (labels, *halves)
        )
        values = predictions[target].to_numpy(dtype=np.float64)
        off = measured_interval(known, first, second, values, INTERVAL_LEVEL)
        low, high = bounds(target)
        predictions[f"{target}_low"] = np.clip(predictions[target] - off, low, high)
        predictions[f"{target}_high"] = np.clip(predictions[target] + off, low, high)
    reasons = score_reasons(predictions, eligible, scheme)
    known = {feature for feature in eligible if feature in labels.index}
    return _ranked(indexed, labels, predictions, reasons, known)


def _ranked(
    indexed: pd.DataFrame,
    labels: pd.DataFrame,
    predictions: pd.DataFrame,
    reasons: pd.Series,
    eligible: AbstractSet[int],
) -> pd.DataFrame:
    table = pd.DataFrame({"feature": indexed.index.to_numpy()})
    for name in predictions.columns:
        table[f"predicted_{name}"] = predictions[name].to_numpy()
    table["measured"] = table["feature"].isin(labels.index)
    for target in scheme_of(predictions.columns).targets:
        table[f"measured_{target}"] = table["feature"].map(labels[target])
    table["eligible"] = table["feature"].isin(eligible)
    table["final_act_freq"] = indexed["final_act_freq"].to_numpy()
    for name in TOKENS:
        if name in indexed:
            table[name] = indexed[name].to_numpy()
    table["reasons"] = reasons.to_numpy()
    table = table.sort_values(
        ["predicted_clean_score", "feature"], ascending=[False, True], kind="stable"
    ).reset_index(drop=True)
    table.insert(1, "rank", np.arange(1, len(table) + 1))
    return table
