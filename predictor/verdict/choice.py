"""The features of an allowlist, chosen from a ranking."""

from collections.abc import Sequence

import pandas as pd

from ...core.choices import By
from ...core.errors import InputError
from ...core.records import Criterion
from ..model.targets import CLEAN_SCORE, HIGHER_IS_CLEANER, scheme_of

SCORE = f"predicted_{CLEAN_SCORE}"
STABILITY = "predicted_stability_abs"


def _collateral(ranking: pd.DataFrame) -> str:
    """The column of the collateral axis."""
    known = (str(name).removeprefix("predicted_") for name in ranking.columns)
    return f"predicted_{scheme_of(known).collateral}"


def _chosen_by(ranking: pd.DataFrame, by: By) -> tuple[str, ...]:
    """Columns of a ranking that features are chosen by."""
    columns: dict[By, tuple[str, ...]] = {
        "clean": (SCORE,),
        "stability": (STABILITY,),
        "collateral": (_collateral(ranking),),
        "both": (STABILITY, _collateral(ranking)),
    }
    return columns[by]


def choose_allowed(
    ranking: pd.DataFrame,
    top: int | None = None,
    min_score: float | None = None,
    by: By = "clean",
    min_stability: float | None = None,
    max_collateral_per_effect: float | None = None,
) -> tuple[list[int], Criterion]:
    """Eligible features in rising order, and how they were chosen: of those that pass the floors, the
    ``top`` cleanest, all with at least ``min_score``, or all.

    Args:
        ranking: columns ``feature``, ``predicted_clean_score`` and ``eligible``, by falling score; and
            of what is asked for ``predicted_stability_abs``, ``predicted_collateral_per_effect``, their
            ``_low`` and ``_high``.
        top: number of features.
        min_score: lowest predicted clean score.
        by: what is cleanest: ``clean``, the predicted clean score; ``stability`` or ``collateral``, one
            axis alone; ``both``, the worse of a feature's percentiles among the eligible ones on the two
            axes. Of ties the feature of the higher clean score comes first.
        min_stability: least lower end of the 90 % interval of predicted stability_abs.
        max_collateral_per_effect: greatest upper end of that of collateral_per_effect, or
            of collateral_relative_per_effect where the ranking is by that.

    Raises:
        InputError: nothing or too much is asked for, no feature qualifies, ``top`` is more than there
            are, or the ranking does not hold what is asked for.

    """
    floors = min_stability is not None or max_collateral_per_effect is not None
    if top is not None and min_score is not None:
        raise InputError("--top and --min-score exclude each other; give one of them")
    if top is None and min_score is None and not floors:
        raise InputError(
            "nothing says how many features; expected --top K, --min-score S, --min-stability X or "
            "--max-collateral-per-effect Y; give one"
        )
    if min_score is not None and by != "clean":
        raise InputError(
            f"--min-score is a clean score, and --by {by} does not go by it; expected --top, "
            "--min-stability or --max-collateral-per-effect with it; give one of these"
        )
    eligible = ranking[ranking["eligible"]]
    scores = _percentiles(eligible, by)
    candidates = eligible[_pass(eligible, min_stability, max_collateral_per_effect)]
    criterion = Criterion(
        rule="floors",
        score=" ".join(_chosen_by(ranking, by))
        if top is not None or min_score is not None
        else None,
        min_stability=min_stability,
        max_collateral_per_effect=max_collateral_per_effect,
    )
    if top is not None:
        _check_top(top, len(candidates), floors)
        order = scores[candidates.index].sort_values(ascending=False, kind="stable").index
        chosen = candidates.loc[order[:top]]
        criterion = criterion.model_copy(update={"rule": "top", "k": top})
    elif min_score is not None:
        chosen = candidates[candidates[SCORE] >= min_score]
        criterion = criterion.model_copy(update={"rule": "min_score", "min_score": min_score})
        if chosen.empty:
            best = candidates[SCORE].max()
            raise InputError(
                f"no eligible feature has a predicted clean score of {min_score} or more; the highest "
                f"is {best:.3f}; lower --min-score"
            )
    else:
        chosen = candidates
    return sorted(int(feature) for feature in chosen["feature"]), criterion


def _check_top(top: int, n: int, floors: bool) -> None:
    if 1 <= top <= n:
        return
    which = "eligible features that pass the floors" if floors else "eligible features"
    raise InputError(
        f"--top {top} does not lie between 1 and the {n} {which}; choose such a number"
    )


def _percentiles(eligible: pd.DataFrame, by: By) -> pd.Series:
    """How clean each feature is, higher is cleaner: its percentile on each axis, of two the worse."""
    if by == "clean":
        return eligible[SCORE]
    return _ranks(eligible, _chosen_by(eligible, by)).min(axis=1)


def axis_percentiles(eligible: pd.DataFrame) -> pd.DataFrame:
    """Each feature's percentile on both axes among the eligible features of a ranking, higher is
    cleaner: columns ``stability`` and ``collateral``.

    Raises:
        InputError: the ranking lacks a prediction of an axis.

    """
    ranks = _ranks(eligible, _chosen_by(eligible, "both"))
    return ranks.set_axis(["stability", "collateral"], axis=1)


def _ranks(eligible: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: _known(eligible, name).rank(pct=True, ascending=_rises(name)) for name in columns}
    )


def _rises(column: str) -> bool:
    return HIGHER_IS_CLEANER[column.removeprefix("predicted_")]


def _pass(
    eligible: pd.DataFrame, min_stability: float | None, max_collateral: float | None
) -> pd.Series:
    """Which features pass the floors on their whole 90 % intervals."""
    passing = pd.Series(True, eligible.index)
    if min_stability is not None:
        low = _known(eligible, f"{STABILITY}_low")
        passing &= low >= min_stability
        if not passing.any():
            raise InputError(
                f"no eligible feature has a predicted stability_abs of {min_stability:g} or more at the "
                f"lower end of its 90 % interval; the highest is {low.max():.3f}; lower --min-stability"
            )
    if max_collateral is not None:
        column = _collateral(eligible)
        high = _known(eligible, f"{column}_high")
        within = high <= max_collateral
        if not (passing & within).any():
            raise InputError(
                "no eligible feature "
                + ("that is stable enough " if min_stability is not None else "")
                + f"has a {column.replace('_', ' ', 1)} of {max_collateral:g} or less at the upper end "
                f"of its 90 % interval; the lowest is {high[passing].min():.3f}; raise "
                "--max-collateral-per-effect"
            )
        passing &= within
    return passing


def _known(eligible: pd.DataFrame, column: str) -> pd.Series:
    if column not in eligible or eligible[column].isna().any():
        raise InputError(
            f"the ranking has no {column!r}, which is asked for; it was made by an earlier version, or "
            "by a predictor of other settings; rank anew on labels of this one (cleansteer rank)"
        )
    return eligible[column]
