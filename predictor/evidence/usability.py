"""Which labels can be used: those that repeat, and that differ from feature to feature."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from ...core.records import LabelJudgement, LabelReliability
from ..model.targets import ABSOLUTE, CLEAN_SCORE, Scheme

LEAST_RELIABILITY = 0.3
"""Of a label between halves of its contexts: below it no prediction can agree with new contexts by more
than about .7."""
MOST_ALIKE = 0.5
"""Share of the features that may have the same label."""
MOST_MOVED = 0.9
"""Share of the panel that features may move on average, for a count."""
ALIKE = 0.05
"""p of the test of features against random directions, above which a label does not tell them apart."""


def judge_labels(
    labels: pd.DataFrame,
    reliability: Mapping[str, LabelReliability],
    random: pd.DataFrame,
    panel_size: int,
    scheme: Scheme,
) -> dict[str, LabelJudgement]:
    """Judge the labels that a scheme ranks by, each by these rules:

    - it repeats: Spearman between halves of the contexts is at least 0.3, its 95 % interval above zero;
    - it is not saturated: no more than half of the features have the same value, and a count's mean is
      no more than 90 % of the panel.

    A label that does not tell features from random directions of the same norm in the same places
    (two-sided Kolmogorov-Smirnov p of the two samples above 0.05) has a caveat: features can be ranked by
    it, but so can any directions. Not asked of the clean score, which is relative to the features that it
    is taken over.

    Args:
        labels: of the labelled features, indexed by feature.
        reliability: between halves of the contexts, by label.
        random: labels of random directions, indexed by the feature whose place they take.
        panel_size: downstream features that are counted.
        scheme: which labels.

    """
    return {
        name: _judge(name, labels, reliability[name], random, panel_size)
        for name in (*scheme.judged, scheme.spread)
    }


def _judge(
    name: str,
    labels: pd.DataFrame,
    repeats: LabelReliability,
    random: pd.DataFrame,
    panel_size: int,
) -> LabelJudgement:
    values = labels[name].to_numpy(dtype=np.float64)
    reasons, caveats = [], []
    if not (repeats.value >= LEAST_RELIABILITY and repeats.low > 0):
        reasons.append(
            f"it does not repeat: {repeats.value:.2f} [{repeats.low:.2f}, {repeats.high:.2f}] between "
            f"halves of the contexts, expected {LEAST_RELIABILITY:g} or more; give more contexts "
            "(contexts_per_type, --reliability) or push harder"
        )
    alike = np.unique(values, return_counts=True)[1].max() / len(values)
    if alike > MOST_ALIKE:
        reasons.append(
            f"it is the same for {alike:.0%} of the features; change the strength (alpha, target_kl)"
        )
    if name == ABSOLUTE.spread and values.mean() > MOST_MOVED * panel_size:
        reasons.append(
            f"it is saturated: {values.mean():.0f} of {panel_size} panel features move; push less hard"
        )
    if name != CLEAN_SCORE:
        p = _ks_p(name, labels, random)
        if p > ALIKE:
            caveats.append(
                f"{name} does not tell features from random directions of their norms "
                f"(Kolmogorov-Smirnov p = {p:.2g})"
            )
    return LabelJudgement(usable=not reasons, reasons=reasons, caveats=caveats)


def _ks_p(name: str, labels: pd.DataFrame, random: pd.DataFrame) -> float:
    there = labels.index.intersection(random.index)
    return float(ks_2samp(labels.loc[there, name], random.loc[there, name]).pvalue)
