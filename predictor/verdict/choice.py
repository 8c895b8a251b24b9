"""The features of an allowlist, chosen from a ranking."""

import pandas as pd

from ...core.errors import InputError
from ...core.records import Criterion

SCORE = "predicted_clean_score"


def choose_allowed(
    ranking: pd.DataFrame, top: int | None = None, min_score: float | None = None
) -> tuple[list[int], Criterion]:
    """The eligible features with the highest predicted clean scores, in rising order, and how they
    were chosen: the first ``top`` of them, or all with at least ``min_score``.

    Args:
        ranking: columns ``feature``, ``predicted_clean_score`` and ``eligible``, by falling score.
        top: number of features.
        min_score: lowest predicted clean score.

    Raises:
        InputError: not exactly one of ``top`` and ``min_score`` is given, no feature qualifies, or
            ``top`` is more than there are.

    """
    if (top is None) == (min_score is None):
        raise InputError("give either --top K or --min-score S")
    candidates = ranking[ranking["eligible"]]
    if top is not None:
        if not 1 <= top <= len(candidates):
            raise InputError(
                f"--top {top} does not lie between 1 and the {len(candidates)} eligible features; "
                "choose such a number"
            )
        chosen = candidates.head(top)
        criterion = Criterion(rule="top", k=top, score=SCORE)
    else:
        chosen = candidates[candidates[SCORE] >= min_score]
        criterion = Criterion(rule="min_score", min_score=min_score, score=SCORE)
        if chosen.empty:
            best = candidates[SCORE].max()
            raise InputError(
                f"no eligible feature has a predicted clean score of {min_score} or more; the highest "
                f"is {best:.3f}; lower --min-score"
            )
    return sorted(int(feature) for feature in chosen["feature"]), criterion
