"""Forecasts by linear response against what steering on fresh contexts measures, without labels."""

import numpy as np
import pandas as pd

from ...core.errors import InputError
from ...core.records import ForecastCheck
from ..model.checks import LEAST_SPLIT
from ..model.targets import ABSOLUTE, CLEAN_SCORE, Scheme, clean_score
from .fresh import Groups, take_groups
from .resampling import bootstrap, resampled_spearman
from .scores import RESAMPLES, percentile_interval, spearman


def check_enough_eligible(n_eligible: int) -> None:
    """Refuse fewer eligible features than the fresh check of a ranking without labels takes.

    Raises:
        InputError: fewer than 15.

    """
    if n_eligible < LEAST_SPLIT:
        raise InputError(
            f"{n_eligible} eligible features are too few for the fresh check, expected at least "
            f"{LEAST_SPLIT}; give more contexts or a larger dictionary"
        )


def choose_groups_by_forecast(forecasts: pd.DataFrame, seed: int) -> Groups:
    """Choose predicted-clean, predicted-messy and random features by forecasts alone.

    Of all features given, those whose forecast effect_l2 lies between its 10 % and 90 % quantiles stay;
    groups are taken of them as :func:`~cleansteer.predictor.evidence.fresh.choose_groups` does.

    Args:
        forecasts: of the eligible features: labels by their own names, indexed by feature, rising.
        seed: seeds the random group.

    Raises:
        InputError: fewer than 15 features.

    Source: docs/protocol.md, Screening without labels.

    """
    check_enough_eligible(len(forecasts))
    return take_groups(forecasts, 0, np.random.default_rng(seed))


def check_forecasts(
    forecasts: pd.DataFrame,
    fresh: pd.DataFrame,
    groups: Groups,
    seed: int,
    scheme: Scheme = ABSOLUTE,
) -> ForecastCheck:
    """Spearman of the forecasts of what a scheme judges by, and of effect_l2, with fresh labels over
    the random group, with 95 % percentile-bootstrap
    intervals (2,000 resamples over features).

    The clean score of the fresh labels is standardised over these features.

    Args:
        forecasts: labels by their own names, indexed by feature.
        fresh: labels on fresh contexts, indexed by feature.
        groups: of the fresh check.
        seed: seeds the resampling.
        scheme: what the clean score is made of, and which label stands for each axis.

    Source: docs/protocol.md, Screening without labels.

    """
    drawn = groups.features["random"]
    measured = fresh.loc[drawn]
    measured = measured.assign(**{CLEAN_SCORE: clean_score(measured, scheme=scheme)})
    counts = bootstrap(len(drawn), RESAMPLES, seed)
    correlations = {}
    for label in (*scheme.judged, "effect_l2"):
        ours, theirs = (
            table.loc[drawn, label].to_numpy(dtype=np.float64) for table in (forecasts, measured)
        )
        correlations[label] = percentile_interval(
            spearman(ours, theirs), resampled_spearman(ours, theirs, counts)
        )
    return ForecastCheck(n_features=len(drawn), spearman=correlations)
