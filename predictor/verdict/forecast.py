"""How far a ranking can be trusted that nothing was fitted for: by linear response, or measured."""

from collections.abc import Mapping

from ...core.records import ForecastCheck, FreshCheck, LabelJudgement, Verdict
from ..model.checks import LEAST_FITTED
from ..model.targets import ABSOLUTE, Scheme
from .judgement import axis_verdict, overall


def judge_forecasts(
    check: FreshCheck,
    forecasts: ForecastCheck,
    scheme: Scheme = ABSOLUTE,
    labels: Mapping[str, LabelJudgement] | None = None,
) -> Verdict:
    """The verdict for each axis and for both, as
    :func:`~cleansteer.predictor.verdict.judgement.judge` gives it, by other rules.

    An axis is trusted where all of these hold:

    - the random group of the fresh check has at least 30 features;
    - over it, the 95 % interval of the Spearman of what features are ranked by, a forecast or a measured
      label, with its fresh label lies above zero;
    - on fresh contexts predicted-clean beats predicted-messy, the 95 % interval excluding zero.

    The last two are of different features: the random group holds none of the other two. A measured
    label has to be usable, as in :func:`~cleansteer.predictor.verdict.judgement.judge`.

    Args:
        check: the check on fresh contexts.
        forecasts: how forecasts agree with fresh labels over its random group.
        scheme: which label stands for each axis.
        labels: of a measured ranking: whether each label can be used.

    Source: docs/trust.md, Without labels, Every feature labelled.

    """
    axes = {
        axis: axis_verdict(
            measure, _failures(measure, check, forecasts, labels is not None), labels
        )
        for axis, measure in scheme.axes.items()
    }
    return Verdict(overall=overall(axes), axes=axes, fresh_check=True)


def _failures(
    measure: str, check: FreshCheck, forecasts: ForecastCheck, measured: bool
) -> list[str]:
    failures = []
    what = "label" if measured else "forecast"
    if forecasts.n_features < LEAST_FITTED:
        remedy = "give more contexts" if measured else "screen with labels (--labels)"
        failures.append(
            f"{forecasts.n_features} random features are too few to judge a {what} by, expected at "
            f"least {LEAST_FITTED}; {remedy}"
        )
    if not forecasts.spearman[measure].above_zero:
        failures.append(f"the {what}'s rank correlation with its fresh label is not above zero")
    if not check.comparison(measure).cleaner:
        failures.append("on fresh contexts predicted-clean does not beat predicted-messy")
    return failures
