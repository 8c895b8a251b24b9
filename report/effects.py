"""The parts of an audited adapter's page: what edits do, what features mean, form, pairs, checkpoints."""

from collections.abc import Mapping, Sequence

from ..core.records.audit import AuditRecord
from ..core.records.form import FormRecord
from ..core.records.meaning import MeaningGroup, MeaningRecord
from ..core.records.movement import MovementRecord
from .records import Cell, ChartPanel, ChartSeries, Figure, PageTable, ReportSection

_MOST = 15
"""Features of a chart."""
_LONGEST_NAME = 26
_LINES = 6
"""Features whose course is drawn."""
_KINDS = {
    "form": "form, together",
    "layout": "layout",
    "punctuation": "punctuation",
    "function_words": "function words",
}


def called(feature: int, description: str | None) -> str:
    """A feature as charts name it."""
    if not description:
        return str(feature)
    cut = len(description) > _LONGEST_NAME
    return f"{feature} {description[:_LONGEST_NAME]}{'...' * cut}"


def effects_section(found: AuditRecord) -> ReportSection | None:
    """What each edit adds to the loss: forecast, and measured where it was switched off."""
    known = [each for each in found.features if each.attribution is not None]
    if not known:
        return None
    first = sorted(known, key=lambda each: -abs(each.attribution or 0.0))[:_MOST]
    names = [called(each.feature, each.description) for each in first]
    forecast = [Figure(each.attribution or 0.0) for each in first]
    measured = [None if each.switched_off is None else Figure(each.switched_off) for each in first]
    note = (
        "What each edit adds to the task's loss, in nats a token; negative where it helps. Forecast is "
        "to first order, from one backward pass; measured is the loss with all edits, less that with "
        "this one switched off."
    )
    if found.agreement is not None:
        agreed = found.agreement
        note += (
            f" Over the {agreed.n} features that were switched off both agree in rank at "
            f"{agreed.spearman:.2f} [{agreed.low:.2f}, {agreed.high:.2f}] (Spearman)."
        )
    return ReportSection(
        "effects",
        "What do the edits do to the task?",
        note,
        [
            ChartPanel(
                "",
                "added to the loss, nats a token",
                names,
                [ChartSeries("forecast", forecast), ChartSeries("measured", measured)],
                reference=0.0,
            )
        ],
        PageTable(
            ["Feature", "forecast", "measured"],
            [
                [name, _loss(each.attribution), _loss(each.switched_off)]
                for name, each in zip(names, first, strict=True)
            ],
        ),
    )


def _loss(added: float | None) -> str | None:
    return None if added is None else f"{added:+.5f}".replace("-", "\u2212")


def meaning_section(found: Sequence[MeaningRecord]) -> ReportSection:
    """How many of their strongest contexts features keep, by group."""
    first = found[0]
    groups = list(_groups(found))
    rows = [str(kept) for kept in range(first.contexts + 1)]
    series = [
        ChartSeries(name, [Figure(n / group.n_judged) for n in group.kept])
        for name, group in groups
        if group.n_judged
    ]
    panel = ChartPanel(
        "Share of the judged features",
        f"contexts kept of {first.contexts}",
        rows,
        series,
        positions=list(range(first.contexts + 1)),
        linear=True,
    )
    note = (
        f"Every feature's {first.contexts} strongest contexts (one a text at most) and its mean "
        f"activation, on {first.n_tokens:,} tokens of {first.n_texts} reference texts, in the model "
        "without the adapter and in the model with it. Judged are features that fire in as many texts "
        "before."
    )
    return ReportSection(
        "meaning",
        "Do features still mean what they meant?",
        note,
        [panel] if series else [],
        PageTable(
            ["Features", "of them", "judged", "contexts kept", "keep under half", "means moved by"],
            [
                [
                    name,
                    group.n,
                    group.n_judged,
                    told_share(group.overlap),
                    group.n_drifted,
                    told_share(group.shift),
                ]
                for name, group in groups
            ],
        ),
    )


def _groups(found: Sequence[MeaningRecord]) -> list[tuple[str, MeaningGroup]]:
    several = len({each.hook for each in found if not each.downstream}) > 1
    groups = []
    for each in found:
        named = {"edited": each.edited, "others": each.others}
        for name, group in ({"downstream": each.others} if each.downstream else named).items():
            where = f" at {each.hook}" if several or each.downstream else ""
            groups += [] if group is None else [(f"{name}{where}", group)]
    return groups


def told_share(share: float | None) -> str | None:
    """A share in per cent."""
    return None if share is None else f"{share:.1%}".replace("%", "\u2009%")


def form_section(found: FormRecord) -> ReportSection:
    """Shares of form of the edit, beside those of the dictionary and of the tokens."""
    figures = []
    for share, interval in (
        (found.edit, found.edit_interval),
        (found.dictionary, found.dictionary_interval),
        (found.tokens, None),
    ):
        figures.append(Figure(share.form) if interval is None else Figure.of(interval))
    rows = ["the edit", "the dictionary's activity", "the tokens"]
    shares = (found.edit, found.dictionary, found.tokens)
    table: list[list[Cell | Figure]] = [
        [title, *(told_share(getattr(each, name)) for each in shares)]
        for name, title in _KINDS.items()
    ]
    note = (
        f"Share of tokens of form on {found.n_tokens:,} tokens: layout (blanks, line breaks, special "
        "tokens), punctuation and function words. Of the edit: by the tokens that its features fire on, "
        "weighted by what each adds to the stream. Intervals are of 95 %, over texts."
    )
    if found.covered < 1:
        note += (
            f" {told_share(found.covered)} of the edit is of features that fire on these texts; of the "
            "others nothing is told."
        )
    return ReportSection(
        "form",
        "Style or content?",
        note,
        [ChartPanel("", "share of form", rows, [ChartSeries("form", figures)], reference=0.0)],
        PageTable(["Kind", *rows], table),
    )


def pairs_section(found: AuditRecord) -> ReportSection | None:
    """Which features act on which others."""
    if not found.pairs:
        return None
    names = {each.feature: each.description for each in found.features}
    several = len({pair.hook for pair in found.pairs}) > 1
    rows: list[list[Cell | Figure]] = [
        [
            called(pair.source, names.get(pair.source)),
            called(pair.target, names.get(pair.target)),
            *([pair.hook] if several else []),
            pair.effect,
            pair.weight,
        ]
        for pair in found.pairs
    ]
    return ReportSection(
        "pairs",
        "Which features act on which others?",
        "The strongest pairs: how much of one feature's edit another's activation makes, mean over "
        "tokens, and for a unit of activation.",
        [],
        PageTable(
            ["Read", "Edited", *(["At"] if several else []), "in the mean", "for a unit"], rows
        ),
    )


def movement_section(found: MovementRecord) -> ReportSection:
    """The parameters of features in one adapter after the other."""
    titles = [
        f"step {each.step}" if each.step is not None else each.path.rstrip("/").rpartition("/")[2]
        for each in found.adapters
    ]
    steps = [each.step for each in found.adapters]
    numbered = [step for step in steps if step is not None]
    rising = len(numbered) == len(steps) and numbered == sorted(set(numbered))
    positions: list[float] = [float(n) for n in (numbered if rising else range(len(steps)))]
    rows = [str(step) for step in numbered] if rising else titles
    first = found.features[:_LINES]
    names = list(found.features[0].parameters) if found.features else []
    panels = [
        ChartPanel(
            name,
            "step" if rising else "adapter",
            rows,
            [
                ChartSeries(
                    called(each.feature, each.description),
                    [Figure(value) for value in each.parameters[name]],
                )
                for each in first
            ],
            positions=positions,
            linear=True,
        )
        for name in names
    ]
    table: list[list[Cell | Figure]] = [
        [
            called(each.feature, each.description),
            *(_values(each.parameters, at) for at in range(len(titles))),
            each.size[-1],
        ]
        for each in found.features
    ]
    counts = [each.n_changed for each in found.adapters]
    changed = str(counts[0]) if len(set(counts)) == 1 else ", ".join(map(str, counts))
    return ReportSection(
        "movement",
        "How did features move?",
        f"What was learnt of each feature ({', '.join(names)}), in {len(titles)} adapters of one "
        f"training; {changed} features had changed. Ordered by the size of the last, the largest change "
        "of a parameter since training began.",
        panels,
        PageTable(["Feature", *titles, "size"], table),
        unfolded=True,
    )


def _values(parameters: Mapping[str, Sequence[float]], at: int) -> str:
    told = " ".join(f"{values[at]:+.3f}" for values in parameters.values())
    return told.replace("-", "\u2212")
