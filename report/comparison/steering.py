"""Tables of what steering said: settings, verdicts, fresh check, reliability, crowding."""

from collections.abc import Sequence

from ...core.published import CROWDING, N_LABELLED, PUBLISHED, SAES, TABLES, reliability_for
from ...core.records import Comparison, Interval
from ...predictor.evidence.controls import LABELS
from ...predictor.evidence.fresh import GROUPS
from ...predictor.model.targets import ABSOLUTE, CLEAN_SCORE
from ..concluded import FEATURES, MESSY, RANDOM
from .rows import (
    ComparedRun,
    Row,
    axes_among,
    frame,
    interval,
    intervals,
    published_row,
    targets_among,
)
from .table import ORIGIN, ComparisonTable

_REPORTED = (
    "Published rows: as reported by Y. Bishnoi's replication (sae-steering-collateral-"
    "residualization, 2026) of the paper's settings (arXiv:2606.08365)."
)


def verdicts(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """How far each ranking can be trusted, with the figures that say so."""
    rows = []
    for run in runs:
        trust = run.screening.trust
        reasons = [f"{axis}: {why}" for axis, by in trust.axes.items() for why in by.told]
        skill = run.screening.skill[CLEAN_SCORE].ours
        measures = run.scheme.axes.values()
        fresh = {f"fresh_{m}": fresh_comparison(run, m).difference for m in measures}
        rows.append(
            run.row(
                {
                    "verdict": trust.overall,
                    **{axis: by.verdict for axis, by in trust.axes.items()},
                    **intervals({"skill_clean_score": skill, **fresh}),
                    "reasons": "; ".join(reasons) or None,
                }
            )
        )
    columns = ["setting", ORIGIN, "verdict", *ABSOLUTE.axes, "skill_clean_score"]
    columns += [f"fresh_{measure}" for _, measure in axes_among(runs)]
    return ComparisonTable(
        "verdicts",
        "Verdicts",
        "How far each ranking can be trusted, by cleansteer's stated rules. skill_clean_score: "
        "out-of-fold Spearman of our predictor; columns fresh_: mean of the "
        "predicted-clean features minus that of the predicted-messy ones, on contexts not used "
        "before; 95 % bootstrap intervals. "
        "Others give no such verdict, so no row is published.",
        frame(rows, [*columns, "reasons"]),
    )


def settings(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """Dictionaries, and what of them was labelled."""
    rows = [run.row(_describe_setting(run)) for run in runs]
    for setting, figures in PUBLISHED.items():
        kind, n_features = SAES[setting]
        rows.append(
            published_row(
                setting,
                {
                    "sae": kind,
                    "mode": "add",
                    "collateral": "absolute",
                    "n_features": n_features,
                    "n_eligible": figures.n_eligible,
                    "n_labelled": N_LABELLED,
                    "l0": figures.l0,
                    "l0_downstream": figures.downstream_l0,
                },
            )
        )
    return ComparisonTable(
        "settings",
        "Settings",
        "sae: kind of the steered SAE (standard is ReLU); n_eligible: features whose "
        "final_act_freq lies between 0.002 and 0.5; l0: mean number of features that fire; mode and "
        "collateral: how features are steered, and by which labels of collateral they are judged. "
        f"{_REPORTED}",
        frame(
            rows,
            [
                "setting",
                ORIGIN,
                "sae",
                "mode",
                "collateral",
                "n_features",
                "n_eligible",
                "n_labelled",
                "l0",
                "l0_downstream",
            ],
        ),
    )


def _describe_setting(run: ComparedRun) -> Row:
    kinds, screening = run.screened.run.manifest.architectures, run.screening
    return {
        "sae": None if kinds is None else kinds.sae,
        "mode": screening.mode,
        "collateral": screening.collateral,
        "n_features": screening.n_features,
        "n_eligible": screening.n_eligible,
        "n_labelled": screening.n_labelled,
        "l0": screening.mean_l0.sae,
        "l0_downstream": screening.mean_l0.downstream_sae,
    }


def fresh_comparison(run: ComparedRun, measure: str) -> Comparison:
    """Predicted-clean against predicted-messy features on fresh contexts."""
    return run.screening.fresh_check.comparison(measure, MESSY)


def fresh(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """Predicted-clean against predicted-messy features on fresh contexts, by axis."""
    rows = [
        {"axis": axis, "measure": measure, **run.row(_compare_groups(run, measure))}
        for axis, measure in axes_among(runs)
        for run in runs
        if measure in run.scheme.axes.values()
    ]
    return ComparisonTable(
        "fresh",
        "Fresh check by axis",
        "Means over features that the predictor was not fitted on, matched by predicted effect_l2, "
        "steered in contexts not used before (protocol of arXiv:2606.08365, held-out screening). "
        "difference: predicted_clean minus predicted_messy with a 95 % bootstrap interval; "
        "as_predicted: the interval lies on the cleaner side of zero. No row is published here.",
        frame(
            rows,
            [
                "axis",
                "measure",
                "setting",
                ORIGIN,
                *GROUPS,
                "difference",
                "p_mann_whitney",
                "as_predicted",
                "group_size",
                "n_contexts",
            ],
        ),
    )


def _compare_groups(run: ComparedRun, measure: str) -> Row:
    check, comparison = run.screening.fresh_check, fresh_comparison(run, measure)
    return {
        **{group: check.means[group][measure] for group in GROUPS},
        **interval("difference", comparison.difference),
        "p_mann_whitney": comparison.p_value,
        "as_predicted": comparison.cleaner,
        "group_size": check.group_size,
        "n_contexts": check.n_contexts,
    }


def reliability(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """How far labels repeat themselves between two halves of the contexts."""
    shown = {*targets_among(runs), "kl_clean_steered"}
    names = (CLEAN_SCORE, *(name for name in LABELS if name in shown))
    rows = [run.row(intervals(_reliabilities(run, names))) for run in runs]
    rows += [published_row(setting, reliability_for(table)) for setting, table in TABLES.items()]
    return ComparisonTable(
        "reliability",
        "Reliability of the labels",
        "Spearman over features between labels from two disjoint halves of the contexts, with 95 % "
        f"bootstrap intervals; not stepped up to all contexts. {_REPORTED}",
        frame(rows, ["setting", ORIGIN, *names]),
    )


def _reliabilities(run: ComparedRun, names: Sequence[str]) -> dict[str, Interval | None]:
    known = run.screened.controls.reliability
    return {name: known[name] for name in names if name in known}


def crowding(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """Decoder crowding against the collateral count, for features and random directions."""
    rows = [run.row(intervals(run.estimates.crowding)) for run in runs]
    for setting, table in TABLES.items():
        features, random = CROWDING[table]
        rows.append(published_row(setting, {FEATURES: features, RANDOM: random}))
    return ComparisonTable(
        "crowding",
        "Decoder crowding and collateral count",
        "Spearman of crowding_topk_mean_abs_cos with collateral_count_0.05 over the labelled "
        "features, and over random directions of some features' norms in their places; 95 % bootstrap "
        f"intervals. {_REPORTED}",
        frame(rows, ["setting", ORIGIN, FEATURES, RANDOM]),
    )
