"""What the experiment shows, as Markdown: tables, and sentences that their figures support."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd

from .design import BASELINES, COMPONENTS, LINEAR, UNCHOSEN, Design
from .summary import differences, foreseen, levels, means

_DIGITS = 4
COST_NAMES = {
    "kl": "KL elsewhere, nats a token",
    "moved": "downstream features moved a token",
    "drift": "drift of downstream latents",
}


def tell(design: Design, points: pd.DataFrame, read: pd.DataFrame) -> str:
    """Tables and sentences.

    Args:
        design: of the experiment.
        points: of :meth:`.experiment.Experiment.points`.
        read: :func:`.summary.read_all` of them.

    """
    found = means(read)
    against = differences(read)
    sections = [
        _made(design, points),
        *_main(design, found),
        *_differences(design, against),
        *_sizes(design, found),
        *_costs(design, points, found),
        *_preferences(design, found),
        *_forecasts(design, points),
    ]
    return "\n".join(sections).rstrip() + "\n"


def _made(design: Design, points: pd.DataFrame) -> str:
    first = points.drop_duplicates(["topic", "seed", "objective"])
    before = first[first["objective"] == "sft"].groupby("topic")["before"].mean()
    plural = "s" if design.seeds > 1 else ""
    losses = ", ".join(f"{topic} {loss:.3f}" for topic, loss in before.items())
    jobs = points.drop_duplicates(["topic", "seed", "objective", "method", "pool", "count"])
    return (
        f"{len(jobs)} adapters; topics {', '.join(design.topics)}, {design.seeds} seed{plural} each, "
        f"{design.steps} steps of {design.batch_size} texts of {design.max_length} tokens at most. "
        f"Held-out loss without an adapter, nats a token: {losses}. Gains are falls of it, means over "
        "topics and seeds with 95 % intervals (Student's t over these blocks), each the most that is "
        "gained while the cost stays within the budget, over strengths and two points of training. "
        f"Inside each pool the {design.count} features are those that are worth most by g²/F at equal "
        f"KL on reference text; *{UNCHOSEN}*: any {design.count}."
    )


def _cell(row: pd.Series) -> str:
    if np.isnan(row["low"]):
        return f"{row['mean']:.{_DIGITS}f}"
    return f"{row['mean']:.{_DIGITS}f} [{row['low']:.{_DIGITS}f}, {row['high']:.{_DIGITS}f}]"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def _rows(
    found: pd.DataFrame, labels: Sequence[tuple[str, str]], budgets: Sequence[float]
) -> Iterator[list[str]]:
    """A row for each method and pool: gains at the budgets."""
    for method, pool in labels:
        own = found[(found["method"] == method) & (found["pool"] == pool)]
        if len(own):
            cells = [
                _cell(own.iloc[int(np.argmin(np.abs(own["budget"].to_numpy() - budget)))])
                for budget in budgets
            ]
            yield [f"`{method}`" if pool else method, pool, *cells]


def _labels(design: Design, components: Sequence[str] = COMPONENTS) -> list[tuple[str, str]]:
    return [*product(components, design.pools), *((name, "") for name in BASELINES)]


def _of(found: pd.DataFrame, design: Design, objective: str, cost: str) -> pd.DataFrame:
    """The main comparison's rows."""
    return found[
        (found["objective"] == objective)
        & (found["cost"] == cost)
        & found["count"].isin([0, design.count])
    ]


def _main(design: Design, found: pd.DataFrame) -> Iterator[str]:
    own = _of(found, design, "sft", "kl")
    yield f"\n## What is gained at equal KL, {design.count} features\n"
    titles = ["component", "pool", *(f"KL ≤ {budget:g}" for budget in design.budgets)]
    yield from _table(titles, list(_rows(own, _labels(design), design.budgets)))


def _differences(design: Design, against: pd.DataFrame) -> Iterator[str]:
    own = _of(against, design, "sft", "kl")
    own = own[own["method"].isin(LINEAR)]
    if not len(own):
        return
    yield "\n## Pools against the random one, in the same topics with the same seeds\n"
    titles = ["component", "pool", *(f"KL ≤ {budget:g}" for budget in design.budgets)]
    pools = [pool for pool in design.pools if pool != "random"]
    yield from _table(titles, list(_rows(own, list(product(LINEAR, pools)), design.budgets)))
    yield from (f"- {sentence}" for sentence in sentences(own, design))
    yield ""


def sentences(against: pd.DataFrame, design: Design) -> list[str]:
    """What the differences say, a sentence for each component and pool at the middle budget.

    Args:
        against: :func:`.summary.differences` of the main comparison.
        design: of the experiment.

    """
    budget = sorted(design.budgets)[len(design.budgets) // 2]
    told = []
    own = against[against["budget"] == budget]
    for method, pool, mean, low, high in zip(
        *(own[name].tolist() for name in ("method", "pool", "mean", "low", "high")), strict=True
    ):
        name = f"`{method}` at KL ≤ {budget:g}: features of the pool *{pool}*"
        if math.isnan(low):
            told.append(f"{name} differ from random ones by {mean:.4f}; one block, no interval.")
        elif low > 0 or high < 0:
            sign = "more" if mean > 0 else "less"
            told.append(
                f"{name} gain {abs(mean):.4f} {sign} than random ones ([{low:.4f}, {high:.4f}])."
            )
        else:
            told.append(
                f"{name} gain as much as random ones, as far as can be seen ({mean:.4f} "
                f"[{low:.4f}, {high:.4f}])."
            )
    return told


def _sizes(design: Design, found: pd.DataFrame) -> Iterator[str]:
    if design.brief:
        return
    budget = sorted(design.budgets)[len(design.budgets) // 2]
    own = found[
        (found["objective"] == "sft") & (found["cost"] == "kl") & (found["budget"] == budget)
    ]
    counts = sorted({design.count, *design.counts})
    rows = []
    for method, pool in product(LINEAR, design.pools):
        cells = [
            own[(own["method"] == method) & (own["pool"] == pool) & (own["count"] == count)]
            for count in counts
        ]
        if all(len(cell) for cell in cells):
            rows.append([f"`{method}`", pool, *(_cell(cell.iloc[0]) for cell in cells)])
    yield f"\n## How many features, at KL ≤ {budget:g}\n"
    yield from _table(["component", "pool", *map(str, counts)], rows)


def _costs(design: Design, points: pd.DataFrame, found: pd.DataFrame) -> Iterator[str]:
    for cost in ("moved", "drift"):
        own = _of(found, design, "sft", cost)
        known = levels(points, cost, design.budgets)
        if np.isnan(known).any():
            continue
        yield f"\n## What is gained at equal {COST_NAMES[cost]}\n"
        yield (
            "The budgets are what goes with those of KL, the median over adapters. LoRA and IA3 change "
            "every layer, which a downstream SAE sees as far as it lies behind them.\n"
        )
        titles = ["component", "pool", *(f"≤ {level:.3g}" for level in known)]
        yield from _table(titles, list(_rows(own, _labels(design, LINEAR), known)))


def _preferences(design: Design, found: pd.DataFrame) -> Iterator[str]:
    own = _of(found, design, "dpo", "kl")
    if not len(own):
        return
    yield "\n## Preferences (DPO)\n"
    yield (
        "The real continuation of a held-out text of the topic is preferred to the model's own. Gains "
        "are falls of DPO's loss, in nats a pair; without an adapter it is ln 2.\n"
    )
    titles = ["component", "pool", *(f"KL ≤ {budget:g}" for budget in design.budgets)]
    yield from _table(titles, list(_rows(own, _labels(design), design.budgets)))


def _forecasts(design: Design, points: pd.DataFrame) -> Iterator[str]:
    table = foreseen(points, design.steps)
    if not len(table):
        return
    yield "\n## Are trainings foreseen?\n"
    yield (
        "Forecast (`cleansteer forecast`: gradients alone, nothing trained) against what was measured of "
        "the same adapters as they were learnt; Spearman over adapters with 95 % bootstrap "
        "intervals.\n"
    )
    rows = [
        [
            str(row.method),
            str(row.of),
            f"{row.rho:.2f} [{row.low:.2f}, {row.high:.2f}]",
            str(row.n),
            f"{row.ratio:.2f}",
        ]
        for row in table.itertuples()
    ]
    titles = ["component", "of", "Spearman", "adapters", "forecast / measured, median"]
    yield from _table(titles, rows)
