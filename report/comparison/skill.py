"""Tables of prediction: skill by predictor set, residualised skill, strongest statistics."""

from collections.abc import Sequence

from ...core.published import RESIDUALISED, TABLES
from ...core.records import Interval
from ...core.records.skill import OURS as OUR_MODEL
from ...predictor.evidence.residuals import CONTROL_SETS
from ...predictor.model.sets import RESPONSE, predictor_sets
from .estimates import Estimates
from .recomputed import read_recomputed
from .rows import (
    ComparedRun,
    Row,
    frame,
    interval,
    intervals,
    mean_row,
    published_row,
    targets_among,
)
from .table import ORIGIN, ComparisonTable

RECOMPUTED = (
    "Published rows: computed by cleansteer with the same code from the tables of Y. Bishnoi's "
    "replication (sae-steering-collateral-residualization, seed 0, 300 features each, 19 of the "
    "statistics), which measured the paper's settings (arXiv:2606.08365)."
)
_SETS = tuple(reversed(predictor_sets([RESPONSE])))
_METHODS = {OUR_MODEL: "cleansteer", "boosting": "boosting"}
_EVERY = "full_with_response"
CLEAN_SCORES = (
    "clean_score is by each setting's own collateral (see Settings), the published ones' absolute."
)
_INSIDE, _OUTSIDE = "training folds", "all rows"


def skill(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """Out-of-fold skill of ours, boosting, and the paper's ridge on every predictor set."""
    rows: list[Row] = []
    targets = targets_among(runs)
    for method, model in _METHODS.items():
        seen = [
            _EVERY if method == OUR_MODEL and _EVERY in run.estimates.sets else "full_all"
            for run in runs
        ]
        ours = [run.row(intervals(_scores(run, method))) for run in runs]
        key: Row = {"model": model}
        rows += [key | {"predictors": name} | row for name, row in zip(seen, ours, strict=True)]
        rows += [key | {"predictors": seen[0]} | row for row in mean_row(ours, targets)]
    for name in _SETS:
        ours = [
            run.row(intervals(run.estimates.sets[name]))
            for run in runs
            if name in run.estimates.sets
        ]
        theirs = [
            published_row(setting, intervals(estimates.sets[name]))
            for setting, estimates in read_recomputed().items()
            if name in estimates.sets
        ]
        of_set: Row = {"model": "ridge", "predictors": name}
        rows += [of_set | row for row in (*ours, *mean_row(ours, targets), *theirs)]
    return ComparisonTable(
        "skill",
        "Predictor skill by predictor set and label",
        "Spearman of out-of-fold predictions (5 folds) with the label, with 95 % intervals over "
        "features (bootstrap, widened for cross-validation). cleansteer: our predictor; boosting: "
        f"LightGBM alone; ridge: the paper's model; mean: over our rows. {CLEAN_SCORES} {RECOMPUTED}",
        frame(rows, ["model", "predictors", "setting", ORIGIN, *targets]),
    )


def _scores(run: ComparedRun, method: str) -> dict[str, Interval | None]:
    return {target: skill.scores.get(method) for target, skill in run.screening.skill.items()}


def residualised(runs: Sequence[ComparedRun]) -> list[ComparisonTable]:
    """Skill at what size and activation leave of a label, for both sets of controls."""
    return [_residualised(name, runs) for name in ("replication", "paper")]


def _residualised(controls: str, runs: Sequence[ComparedRun]) -> ComparisonTable:
    targets = [target for target in targets_among(runs) if target not in CONTROL_SETS[controls]]
    rows: list[Row] = []
    for name in _SETS:
        ours = [
            run.row(intervals(run.estimates.residualised[controls][name]))
            for run in runs
            if name in run.estimates.residualised[controls]
        ]
        inside: Row = {"predictors": name, "nuisance": _INSIDE}
        rows += [inside | row for row in (*ours, *mean_row(ours, targets))]
        if controls == "replication":
            outside: Row = {"predictors": name, "nuisance": _OUTSIDE}
            rows += [inside | row for row in _recomputed_residuals(name)]
            rows += [outside | row for row in _reported(name)]
    note = (
        f"Ridge on every predictor set, target: the label less its fit on "
        f"{', '.join(CONTROL_SETS[controls])} (those that vary). Mean over 5 folds of Spearman, with "
        "95 % bootstrap intervals over features. nuisance: the rows that the fit on the controls saw. "
    )
    if controls == "replication":
        note += (
            f"{RECOMPUTED} Those with nuisance = {_OUTSIDE}: as reported there (Bishnoi 2026), where "
            "the fit is ordinary least squares on all rows."
        )
    else:
        note += "None are published: the replication's tables lack some of these controls."
    return ComparisonTable(
        f"residualised_{controls}",
        f"Residualised skill, controls of the {controls}",
        note,
        frame(rows, ["predictors", "nuisance", "setting", ORIGIN, *targets]),
    )


def _recomputed_residuals(name: str) -> list[Row]:
    return [
        published_row(setting, intervals(estimates.residualised["replication"][name]))
        for setting, estimates in read_recomputed().items()
        if name in estimates.residualised["replication"]
    ]


def _reported(name: str) -> list[Row]:
    by_target = RESIDUALISED.get(name, {})
    return [
        published_row(setting, {target: values[i] for target, values in by_target.items()})
        for i, setting in enumerate(TABLES)
        if by_target
    ]


def strongest(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """The statistic with the largest partial rank correlation with each label."""
    ours = [(run.row({}), run.estimates) for run in runs]
    theirs = [
        (published_row(setting, {}), estimates) for setting, estimates in read_recomputed().items()
    ]
    rows: list[Row] = [
        {"target": target, **row, **figures}
        for target in targets_among(runs)
        for row, estimates in (*ours, *theirs)
        if (figures := _strongest(estimates, target))
    ]
    return ComparisonTable(
        "strongest",
        "Strongest single predictor under control",
        "Largest partial rank correlation of a statistic with the label given "
        f"{', '.join(CONTROL_SETS['replication'])} (less the label itself), with a 95 % bootstrap "
        "interval that does not see that the largest was chosen; p corrected over the setting's "
        "statistics by Holm and by Benjamini-Hochberg; n_significant of n_statistics have p_holm < "
        f"0.05. {RECOMPUTED}",
        frame(
            rows,
            [
                "target",
                "setting",
                ORIGIN,
                "statistic",
                "partial_rho",
                "p_holm",
                "p_bh",
                "n_significant",
                "n_statistics",
            ],
        ),
    )


def _strongest(estimates: Estimates, target: str) -> Row:
    best = estimates.strongest.get(target)
    if best is None:
        return {}
    figures = interval("partial_rho", best.interval)
    return figures | {
        "statistic": best.statistic,
        "p_holm": best.p_holm,
        "p_bh": best.p_bh,
        "n_significant": best.n_significant,
        "n_statistics": best.n_statistics,
    }
