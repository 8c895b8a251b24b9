"""The parts of a screened run's story: skill, fresh check, reliability, random directions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..predictor.resampling import bootstrap
from ..predictor.scores import percentile_interval
from ..predictor.screening import GROUPS, MEASURES
from ..study.screening import fresh_comparison
from .names import name_of
from .records import Cell, Figure, Grid, Panel, Section, Series

RESAMPLES = 2000
METHODS = ("ours", "ridge", "boosting", "freq_only", "activation_magnitude_only")
_SPEARMAN = "Spearman, 95 % interval"
_MEAN = "mean, 95 % interval"


def mean_figure(values: pd.Series, seed: int) -> Figure:
    """A mean with its 95 % bootstrap interval over features."""
    known = values.to_numpy(dtype=np.float64)
    counts = bootstrap(len(known), RESAMPLES, seed)
    found = percentile_interval(known.mean(), counts @ known / len(known))
    return Figure(found.value, found.low, found.high)


def skill_section(screening: Mapping[str, Any]) -> Section:
    """Out-of-fold skill of ours beside the paper's ridge and the baselines."""
    skills = screening["skill"]
    rows = [name_of(target) for target in skills]
    scores = {
        method: [
            Figure.of(s["scores"][method]) if method in s["scores"] else None
            for s in skills.values()
        ]
        for method in METHODS
    }
    leads = [
        [Figure.of(skill[key]) for skill in skills.values()]
        for key in ("over_best_baseline", "over_ridge")
    ]
    columns = [scores[method] for method in METHODS] + leads
    return Section(
        "skill",
        "How well are the labels predicted?",
        f"Spearman correlation of predictions with measured labels over {screening['n_labelled']} "
        "steered features, each predicted by a model that has not seen its label. A ranking that does "
        "not beat firing rate alone and activation magnitude alone is not worth its name.",
        [
            Panel(
                "",
                _SPEARMAN,
                rows,
                [Series(name_of(m), scores[m]) for m in METHODS if any(scores[m])],
                reference=0.0,
            )
        ],
        Grid(
            [
                "Label",
                *(name_of(method) for method in METHODS),
                "over the better baseline",
                "over ridge",
            ],
            [[row, *cells] for row, *cells in zip(rows, *columns, strict=True)],
        ),
    )


def fresh_section(screening: Mapping[str, Any], fresh: pd.DataFrame | None, seed: int) -> Section:
    """Predicted-clean, predicted-messy and random features, steered on fresh contexts.

    Args:
        screening: what ``screening.json`` holds.
        fresh: labels on the fresh contexts, indexed by feature; without them the groups' means have
            no intervals.
        seed: of the resampling.

    """
    check = screening["fresh_check"]
    measures = [measure for measure in MEASURES if measure in check["means"][GROUPS[0]]]

    def figure(group: str, measure: str) -> Figure:
        if fresh is None:
            return Figure(check["means"][group][measure])
        return mean_figure(fresh.loc[check["features"][group], measure], seed)

    means = {m: [figure(group, m) for group in GROUPS] for m in measures}
    rows: list[list[Cell | Figure]] = []
    for measure in measures:
        found = fresh_comparison(check, measure, GROUPS[1])
        rows.append(
            [
                name_of(measure),
                *means[measure],
                Figure.of(found["difference"]),
                p_value(found["p_value"]),
                _judged(found["cleaner"]),
            ]
        )
    groups = [name_of(group) for group in GROUPS]
    return Section(
        "fresh",
        "Does it hold on fresh contexts?",
        f"{check['group_size']} features a group, none of which the predictor was fitted on, matched by "
        f"predicted effect, steered on {check['n_contexts']} contexts not used before. This is the "
        "check that counts: predicted clean has to be stabler than predicted messy, and to spread less "
        "per effect.",
        [Panel(name_of(m), _MEAN, groups, [Series("mean", means[m])]) for m in measures],
        Grid(
            ["Measure", *groups, "clean - messy", "p (Mann-Whitney)", "cleaner?"],
            rows,
        ),
    )


def reliability_section(screening: Mapping[str, Any]) -> Section:
    """How far labels repeat themselves between two halves of the contexts."""
    found = screening["controls"]["reliability"]
    rows = [name_of(label) for label in found]
    halves = [Figure.of(figures) for figures in found.values()]
    whole = [Figure(figures["whole"]) for figures in found.values()]
    return Section(
        "reliability",
        "Do the labels repeat themselves?",
        "Spearman correlation of a label between two disjoint halves of its contexts, and what it "
        "comes to for all of them (Spearman-Brown). No prediction can be expected to agree with a "
        "label better than the label agrees with itself.",
        [
            Panel(
                "",
                _SPEARMAN,
                rows,
                [Series("between halves", halves), Series("all contexts", whole)],
            )
        ],
        Grid(
            ["Label", "between halves", "all contexts"],
            [list(row) for row in zip(rows, halves, whole, strict=True)],
        ),
    )


def random_section(
    screening: Mapping[str, Any],
    labels: pd.DataFrame | None,
    random: pd.DataFrame | None,
    seed: int,
) -> Section:
    """Features against random directions of their norms, in their contexts.

    Args:
        screening: what ``screening.json`` holds.
        labels: of the features, indexed by feature.
        random: of the random directions, indexed by the feature whose place they take; without both
            tables the means have no intervals.
        seed: of the resampling.

    """
    found = screening["controls"]["random_directions"]
    groups = ("features", "random directions")
    panels: list[Panel] = []
    rows: list[list[Cell | Figure]] = []
    for label, pair in found["labels"].items():
        if labels is None or random is None:
            means = [Figure(pair["features"]), Figure(pair["random"])]
        else:
            paired = labels.loc[random.index]
            means = [mean_figure(table[label], seed) for table in (paired, random)]
        panels.append(Panel(name_of(label), _MEAN, groups, [Series("mean", means)]))
        rows.append(
            [name_of(label), *means, Figure.of(pair["difference"]), p_value(pair["p_value"])]
        )
    crowding = found["crowding_and_collateral_count"]
    rows.append(
        [
            "Crowding with collateral count, Spearman",
            Figure.of(crowding["features"]),
            Figure.of(crowding["random"]),
            None,
            None,
        ]
    )
    return Section(
        "random",
        "Is it the feature, or would any push do?",
        f"{found['n_features']} features beside random directions of the same norms, in the same "
        "contexts, read on the same panel. What random directions do as well says nothing about the "
        "feature.",
        panels,
        Grid(["Label", *groups, "paired difference", "p (Wilcoxon)"], rows),
    )


def other_controls(screening: Mapping[str, Any]) -> list[str]:
    """The other controls, a sentence each."""
    dense = screening["controls"]["dense_panel"]
    space = screening["controls"]["residual_space"]
    explained = space.get("mean_resid_explained")
    found = [
        (
            "Dense panel features (firing at more than 10 % of the final tokens): "
            f"{dense['n_dense']:,} of {dense['n_panel']:,}. Collateral count {dense['mean_count']:.2f} "
            f"with and {dense['mean_count_without']:.2f} without them; the two orders of features "
            f"correlate at {dense['spearman']:.2f}."
        ),
        (
            "The change downstream in residual space, which needs no dictionary, has norm "
            f"{space['mean_resid_delta_norm']:.3g} and correlates with the collateral count at "
            f"{space['spearman_with_collateral_count']:.2f}."
        ),
    ]
    if explained is not None:
        share = (
            f"explains {100 * explained:.0f} % of the change in residual space."
            if explained > 0
            else "explains nothing of the change in residual space: what it leaves over is "
            f"{1 - explained:.2g} times the change. The count sees what the dictionary can say of it."
        )
        found.append(f"The downstream SAE's reconstruction {share}")
    asked = screening.get("reliability")
    if asked is not None:
        reached = "reached" if asked["reached"] else "not reached"
        found.append(
            f"A reliability of {asked['asked']:g} was asked for and {reached} in the pilot, with "
            f"{asked['contexts_per_type']} contexts of each type."
        )
    return found


def p_value(p: float) -> str:
    """A p value as it is told."""
    return "< 1e-16" if p < 1e-16 else f"{p:.2g}"


def _judged(cleaner: bool | None) -> str:
    return "" if cleaner is None else "yes" if cleaner else "no"
