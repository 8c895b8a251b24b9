"""The whole of a screening, in its order: from contexts to what it concludes."""

import numpy as np
import pandas as pd

from ..core.records import Screening
from ..predictor.evidence import (
    check_enough,
    check_forecasts,
    choose_groups,
    choose_groups_by_forecast,
    compare_groups,
)
from ..predictor.verdict import judge, judge_forecasts
from .parts import Parts
from .prediction import fingerprint_ranking
from .unlabelled import conclude_unlabelled


def conclude(parts: Parts) -> tuple[Screening, pd.DataFrame]:
    """Measure, fit, rank, check on fresh contexts, and judge; returns the record and the ranking.

    What is too little is told before the long work that it would spoil.

    Raises:
        InputError: something that the setting names cannot be used, or too few features can be
            labelled.

    """
    setting, store, statistics = parts.setting, parts.store, parts.statistics
    if setting.steering.ranked_by == "linear response":
        return conclude_unlabelled(parts)
    prediction = parts.prediction
    check_enough(setting.steering.most_labelled)
    store.prepare(parts.inputs, fresh=True)
    features = statistics.table()
    check_enough(len(statistics.first_round()))
    known = prediction.labelled()
    check_enough(len(known.labels))
    controls, push = prediction.controls(), prediction.push(known.labels)
    scheme = parts.labelling.scheme
    judged = prediction.judged_labels(controls)
    measured = setting.steering.ranked_by == "measurement"
    groups = (
        choose_groups_by_forecast(known.labels, setting.seed)
        if measured
        else choose_groups(known.statistics, known.labels, setting.seed, scheme)
    )
    predictor, skills = prediction.fit()
    steered = np.concatenate(list(groups.features.values()))
    fresh = parts.labelling.fresh_labels(steered)
    groups = groups.among(fresh.index)
    check = compare_groups(groups, fresh, setting.seed)
    agreement, trust = None, judge(skills, check, scheme=scheme, labels=judged)
    if measured:
        agreement = check_forecasts(known.labels, fresh, groups, setting.seed, scheme)
        trust = judge_forecasts(check, agreement, scheme, judged)
    ranking = prediction.rank(predictor)
    manifest = store.run.manifest
    assert manifest.mean_l0 is not None
    assert manifest.evaluator is not None
    screening = Screening(
        setting=setting.name,
        setting_fingerprint=setting.fingerprint,
        n_features=len(features),
        n_eligible=int(ranking["eligible"].sum()),
        n_labelled=int(ranking["measured"].sum()),
        ranked_by=setting.steering.ranked_by,
        mode=setting.steering.mode,
        coefficient=float(known.labels["coefficient"].median()),
        mean_l0=manifest.mean_l0,
        skill=skills,
        fresh_check=check,
        forecasts=agreement,
        controls=controls,
        self_check=manifest.evaluator,
        warnings=manifest.warnings,
        trust=trust,
        reliability=manifest.reliability,
        collateral=setting.steering.collateral,
        labels=judged,
        push=push,
        ranking_fingerprint=fingerprint_ranking(ranking),
    )
    return screening, ranking
