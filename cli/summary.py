"""What ``cleansteer screen`` tells people at the end."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
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
    Verdict,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..predictor.model import Scheme
    from ..study.study import Study

CLEANEST, MESSIEST, EXPLAINED = 20, 10, 3
_INTERVAL = len("+1.23 [+0.1, +2.3]")
_SHOWN_TOKENS = 5
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
SKILL_KEY = (
    "(ridge: the paper's model; trees: boosting alone; freq., magn.: the ridge on\n"
    "firing rates or activation magnitudes alone; over: ours minus it, or minus the\n"
    "better of the two)"
)
FORECAST_KEY = (
    "(drawn from between the other two groups, so from a narrower range than that\nof all features)"
)
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
COLOURS = {"trusted": "green", "partly": "yellow", "not trusted": "red"}


def print_summary(console: Console, study: "Study") -> None:
    """Ranking, skill, fresh check, verdict and files."""
    from ..predictor.model import scheme_for

    screening, ranking = study.screening, study.ranking
    for table in ranking_tables(ranking):
        console.print(table)
    for line in reason_lines(ranking):
        console.print(line, highlight=False, markup=False)
    hidden = screening.n_features - screening.n_eligible
    console.print(
        f"{screening.n_features} features ranked{_ranked_by(screening)} "
        f"{hidden} features that fire too rarely or too often to be labelled are ranked in the file "
        "(eligible = false), not shown here.\n",
        highlight=False,
    )
    if screening.skill:
        console.print(skill_table(screening.skill))
        console.print(SKILL_KEY, highlight=False)
        console.print()
    console.print(
        fresh_table(screening.fresh_check, scheme_for(screening.collateral, screening.mode))
    )
    console.print()
    if screening.forecasts is not None:
        console.print(forecast_table(screening.forecasts, screening.ranked_by == "measurement"))
        console.print(FORECAST_KEY, highlight=False)
        console.print()
    if screening.controls is not None:
        console.print(control_table(screening.controls))
    for line in control_lines(screening):
        console.print(line, highlight=False, markup=False)
    console.print()
    print_verdict(console, screening.trust)
    labels = "labels.parquet" if screening.n_labelled else "fresh_labels.parquet"
    console.print(
        f"\nFiles in {study.path}: report.html (open it in a browser), ranking.parquet (all features), "
        f"screening.json (skill and fresh check), allowlist.json, features.parquet, {labels}, "
        "manifest.json",
        highlight=False,
        markup=False,
    )


def print_verdict(console: Console, verdict: Verdict) -> None:
    """The verdict in its colour, an axis a line, with the rules that failed."""
    colour = COLOURS[verdict.overall]
    console.print(Text.assemble("Ranking: ", (verdict.overall, f"bold {colour}")))
    for axis, judged in verdict.axes.items():
        console.print(f"  {axis}: {judged}", highlight=False, markup=False)


def _ranked_by(screening: Screening) -> str:
    """How the features were ranked, and what their scores are, up to the end of a sentence."""
    if screening.ranked_by == "labels":
        return (
            f", {screening.n_labelled} of them labelled by steering ({_strength(screening)}); a score is "
            "in standard deviations, higher is cleaner, and predicted without the feature's own label."
        )
    if screening.ranked_by == "measurement":
        return (
            f" by measurement: {screening.n_labelled} of them were steered ({_strength(screening)}); a "
            "score is in standard deviations, higher is cleaner, with the measurement's 90 % interval."
        )
    return (
        f" by linear response alone, for {_strength(screening)}: none was labelled; a score is in "
        "standard deviations, higher is cleaner, and a forecast without an interval."
    )


def _strength(screening: Screening) -> str:
    coefficient, mode = f"coefficient {screening.coefficient:.3g}", screening.mode
    strength = coefficient if mode == "add" else f"mode {mode}, in the median {coefficient}"
    return strength if screening.push is None else f"{strength}; a push of {screening.push}"


def ranking_tables(ranking: "pd.DataFrame") -> Iterable[Table]:
    """The cleanest and the messiest eligible features."""
    eligible = ranking[ranking["eligible"]]
    cleanest = eligible.head(CLEANEST)
    scores, labelled = _score_headings(ranking)
    messiest = eligible.iloc[len(cleanest) :].tail(MESSIEST)
    for title, rows in (("Cleanest features", cleanest), ("Messiest features", messiest)):
        table = plain_table(title)
        for name in ("rank", "feature", *scores, "fires in"):
            width = _INTERVAL if name.endswith("(90 %)") else len(name)
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        table.add_column("promotes", overflow="ellipsis", no_wrap=True)
        for row in rows.to_dict("records"):
            tokens = " ".join(_shown(token) for token in row["direct_top_tokens"][:_SHOWN_TOKENS])
            measured = row["measured_clean_score"]
            table.add_row(
                str(row["rank"]),
                str(row["feature"]),
                _predicted(row),
                *(["-" if measured != measured else f"{measured:+.2f}"] if labelled else []),
                f"{row['final_act_freq']:.1%}",
                escape(tokens),
            )
        yield table


def _score_headings(ranking: "pd.DataFrame") -> tuple[tuple[str, ...], bool]:
    """Headings of a score's columns, and whether labels stand beside predictions."""
    measured = ranking["measured_clean_score"]
    if measured.isna().all():
        return ("predicted",), False
    if measured.equals(ranking["predicted_clean_score"]):
        return ("measured (90 %)",), False
    return ("predicted (90 %)", "measured"), True


def _predicted(row: Mapping[Any, Any]) -> str:
    score, low, high = (row[f"predicted_clean_score{end}"] for end in ("", "_low", "_high"))
    return f"{score:+.2f}" if low != low else f"{score:+.2f} [{low:+.1f}, {high:+.1f}]"


def reason_lines(ranking: "pd.DataFrame") -> Iterable[str]:
    """Why the cleanest features, and the messiest one, are ranked as they are."""
    eligible = ranking[ranking["eligible"]]
    shown = [*eligible.head(EXPLAINED).to_dict("records"), *eligible.tail(1).to_dict("records")]
    for row in shown:
        yield f"Why feature {row['feature']} is rank {row['rank']}: {row['reasons'] or 'it is typical'}"


def _shown(token: str) -> str:
    return repr(token)[1:-1].replace(" ", "\u00b7")


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
