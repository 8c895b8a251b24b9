"""What ``cleansteer screen`` tells people at the end."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..core.records import Screening, Verdict
from .figures import (
    control_lines,
    control_table,
    forecast_table,
    fresh_table,
    plain_table,
    skill_table,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..core.choices import RankedBy
    from ..study.study import Study

CLEANEST, MESSIEST, EXPLAINED = 20, 10, 3
_INTERVAL = len("+1.23 [+0.1, +2.3]")
_SHOWN_TOKENS = 5
# There is room for one of them; what a direction promotes by itself is often no name for a feature.
_TOKENS = {"fires at": "peak_top_tokens", "promotes": "direct_top_tokens"}
_UNFITTED = {"measurement": "measured (90 %)"}
"""Headings of scores that no predictor made; other ones are forecasts."""
SKILL_KEY = (
    "(ridge: the paper's model; trees: boosting alone; freq., magn.: the ridge on\n"
    "firing rates or activation magnitudes alone; over: ours minus it, or minus the\n"
    "better of the two)"
)
FORECAST_KEY = (
    "(drawn from between the other two groups, so from a narrower range than that\nof all features)"
)
COLOURS = {"trusted": "green", "partly": "yellow", "not trusted": "red"}


def print_summary(console: Console, study: "Study", names: Mapping[int, str]) -> None:
    """Ranking, with the names of the features that have one, skill, fresh check, verdict and files."""
    from ..predictor.model import scheme_for

    screening, ranking = study.screening, study.ranking
    for table in ranking_tables(ranking, screening.ranked_by, names):
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


def shown_features(ranking: "pd.DataFrame") -> list[int]:
    """The cleanest and the messiest eligible features, which the summary shows."""
    eligible = ranking.loc[ranking["eligible"], "feature"]
    cleanest = eligible.head(CLEANEST)
    return [int(each) for each in (*cleanest, *eligible.iloc[len(cleanest) :].tail(MESSIEST))]


def ranking_tables(
    ranking: "pd.DataFrame", ranked_by: "RankedBy", names: Mapping[int, str]
) -> Iterable[Table]:
    """The cleanest and the messiest eligible features."""
    eligible = ranking[ranking["eligible"]]
    cleanest = eligible.head(CLEANEST)
    labelled = ranked_by == "labels" and ranking["measured"].any()
    scores = (
        ("predicted (90 %)", "measured") if labelled else (_UNFITTED.get(ranked_by, "predicted"),)
    )
    messiest = eligible.iloc[len(cleanest) :].tail(MESSIEST)
    for title, rows in (("Cleanest features", cleanest), ("Messiest features", messiest)):
        table = plain_table(title)
        for name in ("rank", "feature", *scores, "fires in"):
            width = _INTERVAL if name.endswith("(90 %)") else len(name)
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        title = next(title for title, name in _TOKENS.items() if name in rows)
        table.add_column("description" if names else title, overflow="ellipsis", no_wrap=True)
        for row in rows.to_dict("records"):
            tokens = " ".join(map(_shown, row[_TOKENS[title]][:_SHOWN_TOKENS]))
            tokens = names.get(row["feature"], tokens)
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
