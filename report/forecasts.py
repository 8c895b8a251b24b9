"""The part of a story about forecasts by linear response, of a run without labels."""

from ..core.records import Screening
from .names import name_of
from .records import ChartPanel, ChartSeries, Figure, PageTable, ReportSection


def forecast_section(screening: Screening) -> ReportSection:
    """How forecasts agree with what steering on fresh contexts measured."""
    check = screening.forecasts
    assert check is not None
    rows = [name_of(label) for label in check.spearman]
    figures = [Figure.of(correlation) for correlation in check.spearman.values()]
    name = "forecast and fresh label"
    return ReportSection(
        "forecasts",
        "Do the forecasts agree with steering?",
        f"Spearman correlation of each forecast with its label on fresh contexts, over the "
        f"{check.n_features} features of the random group. No feature was labelled, so that nothing was "
        "fitted: linear response ranks them all. The group is drawn from between predicted clean and "
        "predicted messy, from a narrower range than that of all features.",
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
