"""The parts of a screened run's story: skill, fresh check, reliability, random directions."""

import numpy as np
import pandas as pd

from ..core.records import RandomComparison, Screening
from ..predictor.evidence.fresh import GROUPS, MEASURES
from ..predictor.evidence.resampling import bootstrap
from ..predictor.evidence.scores import percentile_interval
from .concluded import CLEAN, FEATURES, MESSY, RANDOM
from .names import name_of
from .records import Cell, ChartPanel, ChartSeries, Figure, PageTable, ReportSection

RESAMPLES = 2000
METHODS = ("ours", "ridge", "boosting", "freq_only", "activation_magnitude_only")
WITHOUT_LABELS = (
    "How well labels are predicted, whether they repeat themselves and what random directions do is not "
    "told: these controls are about labels, and no feature was labelled."
)
_SPEARMAN = "Spearman, 95 % interval"
_MEAN = "mean, 95 % interval"


def mean_figure(values: pd.Series, seed: int) -> Figure:
    """A mean with its 95 % bootstrap interval over features."""
    known = values.to_numpy(dtype=np.float64)
    counts = bootstrap(len(known), RESAMPLES, seed)
    return Figure.of(percentile_interval(known.mean(), counts @ known / len(known)))


def skill_section(screening: Screening) -> ReportSection:
    """Out-of-fold skill of ours beside the paper's ridge and the baselines."""
    skills = screening.skill
    rows = [name_of(target) for target in skills]
    scores = {
        method: [
            Figure.of(skill.scores[method]) if method in skill.scores else None
            for skill in skills.values()
        ]
        for method in METHODS
    }
    leads = [
        [Figure.of(skill.over_best_baseline) for skill in skills.values()],
        [Figure.of(skill.over_ridge) for skill in skills.values()],
    ]
    columns = [scores[method] for method in METHODS] + leads
    return ReportSection(
        "skill",
        "How well are the labels predicted?",
        f"Spearman correlation of predictions with measured labels over {screening.n_labelled} "
        "steered features, each predicted by a model that has not seen its label. A ranking that does "
        "not beat firing rate alone and activation magnitude alone is not worth its name.",
        [
            ChartPanel(
                "",
                _SPEARMAN,
                rows,
                [ChartSeries(name_of(m), scores[m]) for m in METHODS if any(scores[m])],
                reference=0.0,
            )
        ],
        PageTable(
            [
                "Label",
                *(name_of(method) for method in METHODS),
                "over the better baseline",
                "over ridge",
            ],
            [[row, *cells] for row, *cells in zip(rows, *columns, strict=True)],
        ),
    )


def fresh_section(screening: Screening, fresh: pd.DataFrame | None, seed: int) -> ReportSection:
    """Predicted-clean, predicted-messy and random features, steered on fresh contexts.

    Args:
        screening: of the run.
        fresh: labels on the fresh contexts, indexed by feature; without them the groups' means have
            no intervals.
        seed: of the resampling.

    """
    check = screening.fresh_check
    fitted = ", none of which the predictor was fitted on" if screening.n_labelled else ""
    measures = [measure for measure in MEASURES if measure in check.means[CLEAN]]

    def figure(group: str, measure: str) -> Figure:
        if fresh is None:
            return Figure(check.means[group][measure])
        return mean_figure(fresh.loc[check.features[group], measure], seed)

    means = {m: [figure(group, m) for group in GROUPS] for m in measures}
    rows: list[list[Cell | Figure]] = []
    for measure in measures:
        comparison = check.comparison(measure, MESSY)
        rows.append(
            [
                name_of(measure),
                *means[measure],
                Figure.of(comparison.difference),
                write_p(comparison.p_value),
                _write_judgement(comparison.cleaner),
            ]
        )
    groups = [name_of(group) for group in GROUPS]
    return ReportSection(
        "fresh",
        "Does it hold on fresh contexts?",
        f"{check.group_size} features a group{fitted}, matched by "
        f"predicted effect, steered on {check.n_contexts} contexts not used before. This is the "
        "check that counts: predicted clean has to be stabler than predicted messy, and to spread less "
        "per effect.",
        [ChartPanel(name_of(m), _MEAN, groups, [ChartSeries("mean", means[m])]) for m in measures],
        PageTable(
            ["Measure", *groups, "clean - messy", "p (Mann-Whitney)", "cleaner?"],
            rows,
        ),
    )


def reliability_section(screening: Screening) -> ReportSection:
    """How far labels repeat themselves between two halves of the contexts."""
    assert screening.controls is not None
    reliability = screening.controls.reliability
    rows = [name_of(label) for label in reliability]
    halves = [Figure.of(figures) for figures in reliability.values()]
    whole = [Figure(figures.whole) for figures in reliability.values()]
    return ReportSection(
        "reliability",
        "Do the labels repeat themselves?",
        "Spearman correlation of a label between two disjoint halves of its contexts, and what it "
        "comes to for all of them (Spearman-Brown). No prediction can be expected to agree with a "
        "label better than the label agrees with itself.",
        [
            ChartPanel(
                "",
                _SPEARMAN,
                rows,
                [ChartSeries("between halves", halves), ChartSeries("all contexts", whole)],
            )
        ],
        PageTable(
            ["Label", "between halves", "all contexts"],
            [list(row) for row in zip(rows, halves, whole, strict=True)],
        ),
    )


def random_section(
    screening: Screening,
    labels: pd.DataFrame | None,
    random: pd.DataFrame | None,
    seed: int,
) -> ReportSection:
    """Features against random directions of their norms, in their contexts.

    Args:
        screening: of the run.
        labels: of the features, indexed by feature.
        random: of the random directions, indexed by the feature whose place they take; without both
            tables the means have no intervals.
        seed: of the resampling.

    """
    assert screening.controls is not None
    control = screening.controls.random_directions

    def means(label: str, pair: RandomComparison) -> list[Figure]:
        if labels is None or random is None:
            return [Figure(pair.features), Figure(pair.random)]
        paired = labels.loc[random.index]
        return [mean_figure(table[label], seed) for table in (paired, random)]

    groups = ("features", "random directions")
    panels: list[ChartPanel] = []
    rows: list[list[Cell | Figure]] = []
    for label, pair in control.labels.items():
        both = means(label, pair)
        panels.append(ChartPanel(name_of(label), _MEAN, groups, [ChartSeries("mean", both)]))
        rows.append([name_of(label), *both, Figure.of(pair.difference), write_p(pair.p_value)])
    crowding = control.crowding_and_collateral_count
    rows.append(
        [
            "Crowding with collateral count, Spearman",
            Figure.of(crowding[FEATURES]),
            Figure.of(crowding[RANDOM]),
            None,
            None,
        ]
    )
    return ReportSection(
        "random",
        "Is it the feature, or would any push do?",
        f"{control.n_features} features beside random directions of the same norms, in the same "
        "contexts, read on the same panel. What random directions do as well says nothing about the "
        "feature.",
        panels,
        PageTable(["Label", *groups, "paired difference", "p (Wilcoxon)"], rows),
    )


def describe_controls(screening: Screening) -> list[str]:
    """The other controls, a sentence each."""
    if screening.controls is None:
        return [WITHOUT_LABELS]
    dense, space = screening.controls.dense_panel, screening.controls.residual_space
    sentences = [
        (
            "Dense panel features (firing at more than 10 % of the final tokens): "
            f"{dense.n_dense:,} of {dense.n_panel:,}. Collateral count {dense.mean_count:.2f} "
            f"with and {dense.mean_count_without:.2f} without them; the two orders of features "
            f"correlate at {dense.spearman:.2f}."
        ),
        (
            "The change downstream in residual space, which needs no dictionary, has norm "
            f"{space.mean_resid_delta_norm:.3g} and correlates with the collateral count at "
            f"{space.spearman_with_collateral_count:.2f}."
        ),
    ]
    if space.mean_resid_explained is not None:
        explained = _describe_explained(space.mean_resid_explained)
        sentences.append(f"The downstream SAE's reconstruction {explained}")
    pilot = screening.reliability
    if pilot is not None:
        reached = "reached" if pilot.reached else "not reached"
        sentences.append(
            f"A reliability of {pilot.asked:g} was asked for and {reached} in the pilot, with "
            f"{pilot.contexts_per_type} contexts of each type."
        )
    return sentences


def _describe_explained(share: float) -> str:
    if share > 0:
        return f"explains {100 * share:.0f} % of the change in residual space."
    return (
        "explains nothing of the change in residual space: what it leaves over is "
        f"{1 - share:.2g} times the change. The count sees what the dictionary can say of it."
    )


def write_p(p: float) -> str:
    """A p value as text."""
    return "< 1e-16" if p < 1e-16 else f"{p:.2g}"


def _write_judgement(cleaner: bool | None) -> str:
    return "" if cleaner is None else "yes" if cleaner else "no"
