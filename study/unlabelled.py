"""The whole of a screening without labels: features ranked by linear response, checked on fresh
contexts.
"""

import numpy as np
import pandas as pd

from ..core.records import Screening
from ..predictor.evidence import (
    check_enough_eligible,
    check_forecasts,
    choose_groups_by_forecast,
    compare_groups,
)
from ..predictor.model import forecasts_of
from ..predictor.verdict import judge_forecasts
from ..steering_eval.choice import eligible_features
from .parts import Parts
from .prediction import fingerprint_ranking


def conclude_unlabelled(parts: Parts) -> tuple[Screening, pd.DataFrame]:
    """Measure, forecast, rank, check on fresh contexts, and judge; returns the record and the ranking.

    What is too little is told before the long work that it would spoil. Nothing but the features of
    the fresh check is steered, and nothing is fitted.

    Raises:
        InputError: something that the setting names cannot be used, or too few features are eligible.

    Source: docs/protocol.md, Screening without labels.

    """
    setting, store = parts.setting, parts.store
    store.prepare(parts.inputs, fresh=True)
    check_enough_eligible(len(parts.statistics.reference()))
    features = parts.response.table()
    forecasts = forecasts_of(features.set_index("feature"))
    eligible = forecasts.loc[np.sort(eligible_features(features))]
    groups = choose_groups_by_forecast(eligible, setting.seed)
    fresh = parts.labelling.fresh_labels(np.concatenate(list(groups.features.values())))
    groups, scheme = groups.among(fresh.index), parts.labelling.scheme
    check = compare_groups(groups, fresh, setting.seed)
    agreement = check_forecasts(forecasts, fresh, groups, setting.seed, scheme)
    ranking = parts.prediction.rank_by_response()
    manifest = store.run.manifest
    assert manifest.mean_l0 is not None
    assert manifest.evaluator is not None
    screening = Screening(
        setting=setting.name,
        setting_fingerprint=setting.fingerprint,
        n_features=len(features),
        n_eligible=len(eligible),
        n_labelled=0,
        ranked_by=setting.steering.ranked_by,
        mode=setting.steering.mode,
        coefficient=float(fresh["coefficient"].median()),
        mean_l0=manifest.mean_l0,
        skill={},
        fresh_check=check,
        forecasts=agreement,
        controls=None,
        self_check=manifest.evaluator,
        warnings=manifest.warnings,
        trust=judge_forecasts(check, agreement, scheme),
        collateral=setting.steering.collateral,
        push=parts.prediction.push(fresh),
        ranking_fingerprint=fingerprint_ranking(ranking),
    )
    return screening, ranking
