"""The figures behind a ranking, as tables and lines: skill, fresh check, forecasts, controls."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..core.records import (
    Controls,
    ForecastCheck,
    FreshCheck,
    Interval,
    PilotReport,
    Screening,
    Skill,
)

if TYPE_CHECKING:
    from ..predictor.model import Scheme

_LONGEST_NAME = len("collateral_per_effect")
SHORT = {
    "clean_score": "clean score",
    "stability_abs": "stability",
    "collateral_per_effect": "per effect",
    "collateral_count_0.05": "count",
    "collateral_relative_per_effect": "rel. per effect",
    "collateral_relative_mass": "rel. mass",
    "effect_l2": "effect",
}
"""Short names of the targets."""
WITHOUT_LABELS = (
    "No skill, reliability or random directions are told: they are about labels, and no feature was "
    "labelled (--labels N in another --run)"
)
_METHODS = {
    "ridge": "ridge",
    "boosting": "trees",
    "freq_only": "freq.",
    "activation_magnitude_only": "magn.",
}
_SHOWN_MEASURES = ("effect_l2", "kl_clean_steered", "resid_delta_norm")
"""Beside those of the axes, as far as they were measured."""
_GROUPS = {"predicted_clean": "clean", "predicted_messy": "messy", "random": "random"}


def skill_table(skills: Mapping[str, Skill], ceilings: Mapping[str, float] | None = None) -> Table:
    """Out-of-fold Spearman of ours, plain models and baselines; with the lead over the better
    baseline, or, where the labels' ceilings are given, over the ridge, and these.
    """
    table = plain_table("Skill: out-of-fold Spearman with the label (95 %)")
    table.collapse_padding = True
    leads = ["over freq., magn."] if ceilings is None else ["over ridge", "ceiling"]
    for heading in ("label", "ours", *_METHODS.values(), *leads):
        table.add_column(heading, justify="left" if heading == "label" else "right", no_wrap=True)
    for target, skill in skills.items():
        scores, ceiling = skill.scores, (ceilings or {}).get(target)
        table.add_row(
            SHORT.get(target, target),
            short_interval(scores["ours"]),
            *(short(scores[m].value) if m in scores else "" for m in _METHODS),
            *(
                [short_interval(skill.over_best_baseline)]
                if ceilings is None
                else [
                    short_interval(skill.over_ridge),
                    "" if ceiling is None else short(ceiling),
                ]
            ),
        )
    return table


def fresh_table(check: FreshCheck, scheme: "Scheme") -> Table:
    """Group means on fresh contexts, and predicted-clean against predicted-messy."""
    table = plain_table(
        f"Fresh check: {check.group_size} features a group, matched by predicted effect, steered\n"
        f"on {check.n_contexts} contexts not used before"
    )
    table.add_column("label")
    for heading in (*_GROUPS.values(), "clean - messy (95 %)", "p"):
        table.add_column(heading, justify="right")
    others = (measure for measure in _SHOWN_MEASURES if measure in check.means["random"])
    for measure in dict.fromkeys((*scheme.axes.values(), scheme.spread, *others)):
        messy = check.comparison(measure)
        table.add_row(
            _short_name(measure),
            *(f"{check.means[group][measure]:.3f}" for group in _GROUPS),
            interval(messy.difference, 3),
            f"{messy.p_value:.0e}",
        )
    return table


def forecast_table(check: ForecastCheck, measured: bool = False) -> Table:
    """How forecasts by linear response, or labels of every feature, agree with fresh labels."""
    table = plain_table(
        f"{'Labels' if measured else 'Forecasts'}: Spearman with the fresh label over the "
        f"{check.n_features} random features (95 %)"
    )
    table.add_column("label")
    table.add_column("with the fresh label" if measured else "forecast and label", justify="right")
    for label, correlation in check.spearman.items():
        table.add_row(_short_name(label), interval(correlation, 2))
    return table


def control_table(controls: Controls) -> Table:
    """Reliability of the labels, and features against random directions."""
    random = controls.random_directions
    table = plain_table(
        "Controls: reliability (Spearman between two halves of the contexts, 95 %; all:\n"
        f"stepped up to all of them), and features minus {random.n_features} random directions"
    )
    table.add_column("label")
    for heading in ("reliability", "all", "random", "feature - random (95 %)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, reliability in controls.reliability.items():
        pair = random.labels.get(name)
        table.add_row(
            _short_name(name),
            interval(reliability, 2),
            f"{reliability.whole:.2f}",
            "" if pair is None else f"{pair.random:.3g}",
            "" if pair is None else interval(pair.difference, 3),
        )
    return table


def control_lines(screening: Screening) -> Iterable[str]:
    """The other controls, a line each."""
    if screening.controls is not None:
        yield from _label_control_lines(screening.controls, screening.fresh_check)
    else:
        yield WITHOUT_LABELS
    yield f"Self-check: {screening.self_check}"
    if screening.reliability is not None:
        yield _contexts_line(screening.reliability)
    yield from (f"warning: {warning}" for warning in screening.warnings)


def _label_control_lines(controls: Controls, check: FreshCheck) -> Iterable[str]:
    crowding = controls.random_directions.crowding_and_collateral_count
    yield (
        "Crowding and collateral count, Spearman: "
        f"features {interval(crowding['features'], 2)}, random directions "
        f"{interval(crowding['random'], 2)}"
    )
    dense = controls.dense_panel
    sparse = check.comparison("collateral_count_0.05_sparse").difference
    yield (
        f"Dense panel features (firing at more than 10 %): {dense.n_dense} of {dense.n_panel}; "
        f"collateral count {dense.mean_count:.2f} with, {dense.mean_count_without:.2f} without "
        f"them (Spearman {dense.spearman:.2f}); fresh clean - messy without them "
        f"{interval(sparse, 3)}"
    )
    space = controls.residual_space
    explained = space.mean_resid_explained
    yield (
        f"Residual space: change downstream {space.mean_resid_delta_norm:.3g}, Spearman with the "
        f"collateral count {space.spearman_with_collateral_count:.2f}"
        + ("" if explained is None else f"; the SAE explains {explained:.0%} of it")
    )


def _contexts_line(pilot: PilotReport) -> str:
    """How many contexts the labels took, and whether they repeat themselves as asked for."""
    first, last = pilot.steps[0], pilot.steps[-1]
    worst = min(last.reliability, key=lambda label: last.reliability[label])
    figure = f"{last.reliability[worst]:.3f} of {worst}, the least"
    outcome = (
        f"reaches {pilot.asked:g} in the pilot ({figure})"
        if pilot.reached
        else f"does not reach {pilot.asked:g} in the pilot ({figure}): the budget is "
        f"{pilot.most_contexts_per_type}"
    )
    return (
        f"Contexts of each type: {pilot.contexts_per_type} a label, from "
        f"{first.contexts_per_type} in {len(pilot.steps)} steps; reliability {outcome}"
    )


def _short_name(label: str) -> str:
    """A label's name, or a shorter one where a table would cut it."""
    return label if len(label) <= _LONGEST_NAME else SHORT.get(label, label)


def plain_table(title: str) -> Table:
    """A table without lines."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)


def interval(figure: Interval, digits: int) -> str:
    """A figure with its interval in brackets."""
    value, low, high = (rounded(f, digits) for f in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def rounded(figure: float, digits: int) -> str:
    """A figure with so many decimals."""
    return f"{round(figure, digits) + 0.0:.{digits}f}"  # no -0.00


def short(figure: float, digits: int = 2) -> str:
    """A correlation without the zero before the point."""
    return rounded(figure, digits).replace("0.", ".", 1)


def short_interval(figure: Interval) -> str:
    """A correlation with its interval, without zeros before the points."""
    return f"{short(figure.value)} [{short(figure.low)}, {short(figure.high)}]"


def short_hook(hook: str) -> str:
    """A hook point as a column has room for it: ``2.resid_pre``, ``2.attn.z``."""
    return hook.removeprefix("blocks.").replace("hook_", "")


def named_table(
    title: str,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: Sequence[str | None],
) -> Table:
    """Figures of features, and their names where any has one."""
    table = plain_table(title)
    for each in titles:
        table.add_column(each, justify="right", no_wrap=True)
    if any(names):
        # Not no_wrap: where a terminal is narrow, this column alone gives way, and no figure.
        table.add_column("name")
    for row, name in zip(rows, names, strict=True):
        shown = Text(name or "", no_wrap=True, overflow="ellipsis")
        table.add_row(*row, *([shown] if any(names) else []))
    return table
