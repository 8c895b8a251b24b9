"""The experiment's table and the sentence that it supports, as Markdown."""

from collections.abc import Mapping, Sequence

import pandas as pd

from .correlations import LEVEL, detectable, reliability
from .experiment import Design
from .measures import MEASURES, UNSTEERED

PREDICTED = "predicted_clean_score"
REPEATS = 0.3
"""The least reliability of a measure that can show something."""
_SHOWN = 3
_CUT = 160


def tell(
    design: Design,
    table: pd.DataFrame,
    found: pd.DataFrame,
    halves: Sequence[pd.DataFrame],
    texts: pd.DataFrame,
) -> str:
    """Measures, correlations, sentence, examples.

    Args:
        design: what was asked.
        table: scores and measures, by feature.
        found: :func:`.correlations.correlate` of them.
        halves: the measures on two halves of the prompts.
        texts: all texts.

    """
    plain = texts[texts["feature"] == UNSTEERED]
    told = (
        f"{len(table)} of {design.n_features} features reach a KL of {design.target_kl:g} nats a token; "
        f"{len(design.prompts)} prompts, {design.n_tokens} tokens each, temperature "
        f"{design.temperature:g}, seed {design.seed}. Unsteered texts: {plain['surprisal'].mean():.2f} "
        f"nats a token, {plain['repetition'].mean():.1%} repeated."
    )
    known = {measure: reliability(halves, measure) for measure in MEASURES}
    lines = [
        told,
        "",
        "| measure | median | middle half | reliability |",
        "|---|---|---|---|",
    ]
    for measure in MEASURES:
        low, middle, high = table[measure].quantile([0.25, 0.5, 0.75])
        lines.append(
            f"| {measure} | {middle:.3f} | {low:.3f} to {high:.3f} | {known[measure]:.2f} |"
        )
    lines += ["", f"| Spearman with | {' | '.join(MEASURES)} |", "|---" * (len(MEASURES) + 1) + "|"]
    for score, rows in found.groupby("score", sort=False):
        cells = (f"{r.rho:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in rows.itertuples())
        lines.append(f"| {score} | {' | '.join(cells)} |")
    lines += ["", sentence(found, len(table), known), "", *_examples(table, texts)]
    return "\n".join(lines) + "\n"


def sentence(found: pd.DataFrame, n: int, reliabilities: Mapping[str, float]) -> str:
    """What the correlations of the predicted clean score say.

    Args:
        found: :func:`.correlations.correlate`.
        n: how many features.
        reliabilities: of each measure.

    """
    own = found[found["score"] == PREDICTED].set_index("measure")
    seen = own[own["p_holm"] < LEVEL]
    if len(seen):
        ties = "; ".join(
            f"{'more' if row.rho > 0 else 'less'} {name} ({row.rho:.2f} [{row.low:.2f}, "
            f"{row.high:.2f}], p {row.p_holm:.1g})"
            for name, row in seen.iterrows()
        )
        others = [name for name in own.index if name not in seen.index]
        rest = f", and with no difference seen in {', '.join(others)}" if others else ""
        told = f"At equal KL a higher predicted clean score goes with {ties}{rest}."
    else:
        told = (
            "At equal KL the predicted clean score goes with none of these measures (largest absolute "
            f"correlation {own['rho'].abs().max():.2f}, smallest p among {len(own)} "
            f"{own['p_holm'].min():.2g})."
        )
    blind = [name for name in own.index if reliabilities[name] < REPEATS]
    if blind:
        told += (
            f" What does not repeat between halves of the prompts (reliability below {REPEATS:g}: "
            f"{', '.join(blind)}) can show no tie."
        )
    if len(blind) < len(own):
        told += (
            f" {n} features show a correlation of {detectable(n):.2f} with a measure in four of five "
            f"such experiments ({detectable(n, LEVEL / len(own)):.2f} as one of {len(own)} measures)."
        )
    return told


def _examples(table: pd.DataFrame, texts: pd.DataFrame) -> list[str]:
    """Texts of the cleanest, a middling and the messiest feature."""
    order = table[PREDICTED].sort_values().index
    chosen = {"cleanest": order[-1], "middling": order[len(order) // 2], "messiest": order[0]}
    lines = ["| | text |", "|---|---|"]
    for name, feature in {"unsteered": UNSTEERED, **chosen}.items():
        some = texts[texts["feature"] == feature].sort_values("prompt")["text"].head(_SHOWN)
        label = name if feature == UNSTEERED else f"{name} ({feature})"
        for text in some:
            plain = " ".join(text.split()).replace("|", "\\|")[:_CUT]
            lines.append(f"| {label} | {plain} |")
    return lines
