"""Several runs side by side."""

from collections.abc import Sequence
from typing import Any

from ..predictor.screening import GROUPS
from ..predictor.targets import AXES, CLEAN_SCORE
from ..study.screening import fresh_comparison
from .names import name_of
from .records import Cell, Figure, Grid, Panel, Section, Series
from .run import Run
from .sections import METHODS

SKILLS = (CLEAN_SCORE, *AXES.values())
RELIABILITY = ("stability_abs", "collateral_per_effect", "collateral_count_0.05")


def verdict_table(names: Sequence[str], runs: Sequence[Run]) -> Grid:
    """Every run's verdict, and what it is of."""
    rows: list[list[Cell | Figure]] = []
    for name, run in zip(names, runs, strict=True):
        trust = {} if run.screening is None else run.from_screening(lambda s: s["trust"])
        axes = trust.get("axes", {})
        rows.append(
            [
                name,
                trust.get("overall", "not screened"),
                *(axes.get(axis, {}).get("verdict") for axis in AXES),
                run.setting.model.name,
                run.setting.sae.label,
                None if run.features is None else len(run.features),
                None if run.measured is None else len(run.measured),
            ]
        )
    columns = ["Setting", "Ranking", *(axis.capitalize() for axis in AXES)]
    return Grid([*columns, "Model", "Steered SAE", "Features", "Steered"], rows)


def compare(names: Sequence[str], runs: Sequence[Run]) -> list[Section]:
    """Skill, fresh check and reliability of the screened runs, a row each."""
    screened = [
        (name, run) for name, run in zip(names, runs, strict=True) if run.screening is not None
    ]
    if not screened:
        return []
    return [
        _skill(screened),
        _fresh(screened),
        _reliability(screened),
    ]


def _skill(runs: Sequence[tuple[str, Run]]) -> Section:
    rows = [name for name, _ in runs]

    def scores(target: str, method: str) -> list[Figure | None]:
        def found(screening: dict[str, Any]) -> Figure | None:
            known = screening["skill"][target]["scores"]
            return Figure.of(known[method]) if method in known else None

        return [run.from_screening(found) for _, run in runs]

    panels = [
        Panel(
            name_of(target),
            "Spearman, 95 % interval",
            rows,
            [Series(name_of(method), scores(target, method)) for method in METHODS],
            reference=0.0,
        )
        for target in SKILLS
    ]
    note = "Out-of-fold Spearman correlation of predictions with measured labels, by target."
    return Section("skills", "Skill across settings", note, panels, _table(panels))


def _fresh(runs: Sequence[tuple[str, Run]]) -> Section:
    rows = [name for name, _ in runs]

    def difference(run: Run, measure: str) -> Figure:
        return run.from_screening(
            lambda s: Figure.of(
                fresh_comparison(s["fresh_check"], measure, GROUPS[1])["difference"]
            )
        )

    panels = [
        Panel(
            name_of(measure),
            "clean - messy, 95 % interval",
            rows,
            [Series("clean - messy", [difference(run, measure) for _, run in runs])],
            reference=0.0,
        )
        for measure in AXES.values()
    ]
    note = (
        "Mean of predicted-clean minus mean of predicted-messy features on fresh contexts: above zero "
        "is cleaner for stability, below zero for collateral per effect."
    )
    return Section("freshes", "Fresh check across settings", note, panels, _table(panels))


def _reliability(runs: Sequence[tuple[str, Run]]) -> Section:
    def figure(run: Run, label: str) -> Figure:
        return run.from_screening(lambda s: Figure.of(s["controls"]["reliability"][label]))

    panel = Panel(
        "",
        "Spearman between halves of the contexts, 95 % interval",
        [name for name, _ in runs],
        [Series(name_of(label), [figure(run, label) for _, run in runs]) for label in RELIABILITY],
    )
    note = "How far each label repeats itself between two disjoint halves of its contexts."
    title = "Reliability of the labels across settings"
    return Section("reliabilities", title, note, [panel], _table([panel]))


def _table(panels: Sequence[Panel]) -> Grid:
    """The figures of panels that have the same rows, a row of all of them each."""
    marked = [(panel, series) for panel in panels for series in panel.series]
    columns = [
        ": ".join(part for part in (panel.title, series.name) if part) for panel, series in marked
    ]
    rows: list[list[Cell | Figure]] = [
        [row, *(series.figures[i] for _, series in marked)] for i, row in enumerate(panels[0].rows)
    ]
    return Grid(["Setting", *columns], rows)
