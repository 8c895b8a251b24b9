"""Dose-response: what steering does as it grows stronger."""

import numpy as np
import pandas as pd

from ..steering_eval.doses import KL
from .names import name_of
from .records import Cell, ChartPanel, ChartSeries, Figure, PageTable, ReportSection
from .sections import mean_figure

MEASURES = ("effect_l2", KL, "stability_abs", "collateral_count_0.05")
LEAST_DOSES = 2


def dose_section(
    labels: pd.DataFrame, recommended: pd.DataFrame | None, context_type: str, seed: int
) -> ReportSection | None:
    """Labels by strength, over the features of ``recommended`` and the strengths at which all of
    them were steered; without it, over all strengths and the features that were steered at each.
    None where fewer than two were tried on the same features.

    Args:
        labels: rows of all strengths, of mode ``add``.
        recommended: ``doses.parquet``, where it is there.
        context_type: the rows to take.
        seed: of the resampling.

    """
    added = labels[(labels["mode"] == "add") & (labels["context_type"] == context_type)]
    steered = {
        float(a): set(added.loc[added["alpha"] == a, "feature"]) for a in added["alpha"].unique()
    }
    features: set[int] = set()
    if recommended is not None:
        features = set(recommended["feature"])
        steered = {a: there for a, there in steered.items() if features <= there}
    elif steered:
        features = set.intersection(*steered.values())
    alphas = sorted(steered)
    if len(alphas) < LEAST_DOSES or not features:
        return None
    by_alpha = [added[(added["alpha"] == a) & added["feature"].isin(features)] for a in alphas]
    measures = [m for m in MEASURES if m in added and np.isfinite(added[m]).all()]
    means = {m: [mean_figure(table[m], seed) for table in by_alpha] for m in measures}
    headings = [f"{alpha:g}" for alpha in alphas]
    coefficients = [float(table["coefficient"].median()) for table in by_alpha]
    columns = ["alpha", "coefficient, median", *(name_of(m) for m in measures)]
    rows: list[list[Cell | Figure]] = [
        [heading, coefficient, *(means[m][i] for m in measures)]
        for i, (heading, coefficient) in enumerate(zip(headings, coefficients, strict=True))
    ]
    note = (
        f"{len(features)} features, each steered at {len(alphas)} strengths (alpha) in the same "
        "contexts."
    )
    if recommended is not None:
        budget = float(recommended["kl_budget"].iloc[0])
        none = int(recommended["recommended_alpha"].isna().sum())
        having = f"{none} of {len(recommended)} have none" if none else "each has one"
        columns.append("features within the budget")
        for row, table in zip(rows, by_alpha, strict=True):
            row.append(int((table[KL] <= budget).sum()))
        note += (
            f" The budget is {budget:g} nats of KL(clean || steered); the largest strength within it is "
            f"what doses.parquet recommends for a feature, and {having}."
        )
    return ReportSection(
        "doses",
        "How strongly can it be steered?",
        note,
        [
            ChartPanel(
                name_of(m), "alpha", headings, [ChartSeries("mean", means[m])], positions=alphas
            )
            for m in measures
        ],
        PageTable(columns, rows),
    )
