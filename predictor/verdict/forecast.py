"""How far a ranking by linear response can be trusted, which no label was there to fit."""

from ...core.records import AxisVerdict, ForecastCheck, FreshCheck, Verdict
from ..model.checks import LEAST_FITTED
from ..model.targets import ABSOLUTE, Scheme
from .judgement import overall


def judge_forecasts(
    check: FreshCheck, forecasts: ForecastCheck, scheme: Scheme = ABSOLUTE
) -> Verdict:
    """The verdict for each axis and for both, as
    :func:`~cleansteer.predictor.verdict.judgement.judge` gives it, by other rules.

    An axis is trusted where all of these hold:

    - the random group of the fresh check has at least 30 features;
    - over it, the 95 % interval of the forecast's Spearman with its fresh label lies above zero;
    - on fresh contexts predicted-clean beats predicted-messy, the 95 % interval excluding zero.

    The last two are of different features: the random group holds none of the other two.

    Args:
        check: the check on fresh contexts.
        forecasts: how forecasts agree with fresh labels over its random group.
        scheme: which label stands for each axis.

    Source: docs/trust.md, Without labels.

    """
    axes = {}
    for axis, measure in scheme.axes.items():
        reasons = _failures(measure, check, forecasts)
        axes[axis] = AxisVerdict(verdict="not trusted" if reasons else "trusted", reasons=reasons)
    return Verdict(overall=overall(axes), axes=axes, fresh_check=True)


def _failures(measure: str, check: FreshCheck, forecasts: ForecastCheck) -> list[str]:
    failures = []
    if forecasts.n_features < LEAST_FITTED:
        failures.append(
            f"{forecasts.n_features} random features are too few to judge a forecast by, expected at "
            f"least {LEAST_FITTED}; screen with labels (--labels)"
        )
    if not forecasts.spearman[measure].above_zero:
        failures.append("the forecast's rank correlation with its fresh label is not above zero")
    if not check.comparison(measure).cleaner:
        failures.append("on fresh contexts predicted-clean does not beat predicted-messy")
    return failures
