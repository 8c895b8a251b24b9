"""How far a ranking can be trusted, by stated rules."""

from collections.abc import Mapping

from ...core.records import AxisVerdict, FreshCheck, LabelJudgement, Skill, Verdict
from ...core.records.verdict import Judgement
from ..model.checks import LEAST_FITTED
from ..model.targets import ABSOLUTE, Scheme

_BY_TRUSTED_AXES: tuple[Judgement, ...] = ("not trusted", "partly", "trusted")


def judge(
    skills: Mapping[str, Skill],
    check: FreshCheck | None = None,
    floor: float | None = None,
    scheme: Scheme = ABSOLUTE,
    labels: Mapping[str, LabelJudgement] | None = None,
) -> Verdict:
    """The verdict for each axis (stability: stability_abs; collateral: collateral_per_effect, or by
    another scheme that one's) and for both: ``trusted`` where both are, ``partly`` where one is, else
    ``not trusted``.

    An axis is trusted where each of these rules holds that could be checked:

    - it has at least 30 labelled features, and a label that is not the same for all, and that can be
      used (:func:`~cleansteer.predictor.evidence.usability.judge_labels`);
    - the 95 % interval of its out-of-fold Spearman lies above zero and above ``floor``;
    - the 95 % interval of its lead over the better baseline lies above zero;
    - on fresh contexts predicted-clean beats predicted-messy, the 95 % interval excluding zero.

    The intervals of the second and third rule are widened for cross-validation
    (:func:`~cleansteer.predictor.evidence.scores.out_of_fold_interval`): where statistics say nothing
    of a label, they lie above zero in at most 2 % of tables.

    Args:
        skills: by target.
        check: the check on fresh contexts, where there was one; without it the last rule is not
            checked, and ``fresh_check`` says so.
        floor: 95 % quantile of the score that shuffled labels reach; without it the second rule asks
            for more than zero.
        scheme: which label stands for each axis.
        labels: whether each label can be used; without it that is not checked.

    """
    axes = {
        axis: axis_verdict(
            measure,
            _failures(skills[measure], check, floor)
            if measure in skills
            else [f"the label {measure} is missing"],
            labels,
        )
        for axis, measure in scheme.axes.items()
    }
    return Verdict(overall=overall(axes), axes=axes, fresh_check=check is not None)


def axis_verdict(
    measure: str, reasons: list[str], labels: Mapping[str, LabelJudgement] | None
) -> AxisVerdict:
    """The verdict on one axis: trusted where no rule failed, and its label can be used."""
    judged = None if labels is None else labels.get(measure)
    if judged is not None:
        reasons = reasons + [f"the label {measure} cannot be used: {why}" for why in judged.reasons]
    return AxisVerdict(
        verdict="not trusted" if reasons else "trusted",
        reasons=reasons,
        caveats=[] if judged is None else judged.caveats,
    )


def overall(axes: Mapping[str, AxisVerdict]) -> Judgement:
    """The verdict for both axes."""
    return _BY_TRUSTED_AXES[sum(axis.trusted for axis in axes.values())]


def _failures(skill: Skill, check: FreshCheck | None, floor: float | None) -> list[str]:
    if skill.constant:
        return ["the label is the same for all labelled features: there is nothing to predict"]
    failures = []
    if skill.n_features < LEAST_FITTED:
        failures.append(
            f"{skill.n_features} labelled features are too few to judge, expected at least "
            f"{LEAST_FITTED}; label more (--labels)"
        )
    if not skill.ours.above_zero:
        failures.append("out-of-fold skill is not above zero")
    elif floor is not None and not skill.ours.low > floor:
        failures.append(f"out-of-fold skill is not above what shuffled labels reach ({floor:.2f})")
    if not skill.over_best_baseline.above_zero:
        failures.append(f"out-of-fold skill is not above the baseline {skill.best_baseline}")
    if check is not None and not check.comparison(skill.target).cleaner:
        failures.append("on fresh contexts predicted-clean does not beat predicted-messy")
    return failures
