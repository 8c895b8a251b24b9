"""The part of a story about what features are ranked by without a fit: forecasts by linear response, or
labels of every feature.
"""

from ..core.records import Screening
from .names import name_of
from .records import ChartPanel, ChartSeries, Figure, PageTable, ReportSection


def forecast_section(screening: Screening) -> ReportSection:
    """How forecasts, or labels, agree with what steering on fresh contexts measured."""
    check = screening.forecasts
    assert check is not None
    measured = screening.ranked_by == "measurement"
    what = "label" if measured else "forecast"
    rows = [name_of(label) for label in check.spearman]
    figures = [Figure.of(correlation) for correlation in check.spearman.values()]
    name = f"{what} and fresh label"
    return ReportSection(
        "forecasts",
        "Do the labels hold on fresh contexts?"
        if measured
        else "Do the forecasts agree with steering?",
        f"Spearman correlation of each {what} with {'the same' if measured else 'its'} label on fresh "
        f"contexts, over the {check.n_features} features of the random group. "
        + (
            "Every feature was labelled, so that nothing needs a prediction: the ranking is measured. "
            if measured
            else "No feature was labelled, so that nothing was fitted: linear response ranks them all. "
        )
        + "The group is drawn from between predicted clean and predicted messy, from a narrower range "
        "than that of all features.",
        [
            ChartPanel(
                "",
                "Spearman, 95 % interval",
                rows,
                [ChartSeries(name, figures)],
                reference=0.0,
            )
        ],
        PageTable(["Label", name], [list(row) for row in zip(rows, figures, strict=True)]),
    )
