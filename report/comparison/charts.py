"""Several runs side by side, as the page shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from ...core.records import Screening
from ...predictor.model.targets import ABSOLUTE, CLEAN_SCORE, scheme_for
from ..concluded import MESSY
from ..names import name_of
from ..records import Cell, ChartPanel, ChartSeries, Figure, PageTable, ReportSection
from ..run import Run
from ..sections import METHODS


@dataclass(frozen=True)
class NamedRun:
    """A run, and what it is called among others."""

    name: str
    run: Run


def verdict_table(runs: Sequence[NamedRun]) -> PageTable:
    """Every run's verdict, and what it is of."""
    columns = ["Setting", "Ranking", *(axis.capitalize() for axis in ABSOLUTE.axes)]
    rows = [[named.name, *_judge(named.run.screening), *_describe(named.run)] for named in runs]
    return PageTable([*columns, "Model", "Steered SAE", "Features", "Steered"], rows)


def _judge(screening: Screening | None) -> list[Cell]:
    if screening is None:
        return ["not screened", *(None for _ in ABSOLUTE.axes)]
    return [
        screening.trust.overall,
        *(screening.trust.axes[axis].verdict for axis in ABSOLUTE.axes),
    ]


def _describe(run: Run) -> list[Cell]:
    return [
        run.setting.model.name,
        run.setting.sae.label,
        None if run.features is None else len(run.features),
        "none" if run.by_response else None if run.measured is None else len(run.measured),
    ]


def comparison_sections(runs: Sequence[NamedRun]) -> list[ReportSection]:
    """Skill, fresh check and reliability of the screened runs, a row each; the first and the last are
    about labels, and runs without any have no row there.
    """
    names = [named.name for named in runs if named.run.screening is not None]
    screened = [named.run.screening for named in runs if named.run.screening is not None]
    if not screened:
        return []
    fresh = _fresh(names, screened)
    labelled = [s.controls is not None for s in screened]
    names, screened = list(compress(names, labelled)), list(compress(screened, labelled))
    if not screened:
        return [fresh]
    return [_skill(names, screened), fresh, _reliability(names, screened)]


def _skill(names: Sequence[str], screened: Sequence[Screening]) -> ReportSection:
    def series(target: str, method: str) -> ChartSeries:
        skills = [screening.skill.get(target) for screening in screened]
        scores = [{} if skill is None else skill.scores for skill in skills]
        figures = [Figure.of(by[method]) if method in by else None for by in scores]
        return ChartSeries(name_of(method), figures)

    panels = [
        ChartPanel(
            name_of(target),
            "Spearman, 95 % interval",
            names,
            [series(target, method) for method in METHODS],
            reference=0.0,
        )
        for target in (CLEAN_SCORE, *_measures(screened))
    ]
    note = "Out-of-fold Spearman correlation of predictions with measured labels, by target."
    return ReportSection("skills", "Skill across settings", note, panels, _table(panels))


def _fresh(names: Sequence[str], screened: Sequence[Screening]) -> ReportSection:
    panels = [
        ChartPanel(
            name_of(measure),
            "clean - messy, 95 % interval",
            names,
            [ChartSeries("clean - messy", [_difference(s, measure) for s in screened])],
            reference=0.0,
        )
        for measure in _measures(screened)
    ]
    note = (
        "Mean of predicted-clean minus mean of predicted-messy features on fresh contexts: above zero "
        "is cleaner for stability, below zero for collateral per effect."
    )
    return ReportSection("freshes", "Fresh check across settings", note, panels, _table(panels))


def _measures(screened: Sequence[Screening]) -> list[str]:
    """The labels of the axes, of all runs."""
    by_run = [
        scheme_for(screening.collateral, screening.mode).axes.values() for screening in screened
    ]
    return list(dict.fromkeys(measure for measures in by_run for measure in measures))


def _difference(screening: Screening, measure: str) -> Figure | None:
    if measure not in scheme_for(screening.collateral, screening.mode).axes.values():
        return None
    return Figure.of(screening.fresh_check.comparison(measure, MESSY).difference)


def _reliability(names: Sequence[str], screened: Sequence[Screening]) -> ReportSection:
    def figure(screening: Screening, label: str) -> Figure | None:
        assert screening.controls is not None
        known = screening.controls.reliability
        return Figure.of(known[label]) if label in known else None

    schemes = [scheme_for(screening.collateral, screening.mode) for screening in screened]
    labels = dict.fromkeys(n for s in schemes for n in (*s.axes.values(), s.spread))
    panel = ChartPanel(
        "",
        "Spearman between halves of the contexts, 95 % interval",
        names,
        [ChartSeries(name_of(m), [figure(s, m) for s in screened]) for m in labels],
    )
    note = "How far each label repeats itself between two disjoint halves of its contexts."
    title = "Reliability of the labels across settings"
    return ReportSection("reliabilities", title, note, [panel], _table([panel]))


def _table(panels: Sequence[ChartPanel]) -> PageTable:
    """The figures of panels that have the same rows, a row of all of them each."""
    marked = [(panel, series) for panel in panels for series in panel.series]
    columns = [
        ": ".join(part for part in (panel.title, series.name) if part) for panel, series in marked
    ]
    rows: list[list[Cell | Figure]] = [
        [row, *(series.figures[i] for _, series in marked)] for i, row in enumerate(panels[0].rows)
    ]
    return PageTable(["Setting", *columns], rows)
