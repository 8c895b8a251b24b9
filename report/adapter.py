"""The page of an audited adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ..core.checks import check_file
from ..core.records.audit import AuditRecord
from ..core.records.movement import MovementRecord
from ..core.tables import Json, write_text
from .bundle import bundle
from .effects import (
    effects_section,
    form_section,
    meaning_section,
    movement_section,
    pairs_section,
    told_share,
)
from .provenance import FactGroup
from .records import ReportSection

SCRIPTS = (
    "text.js",
    "data.js",
    "tables.js",
    "charts.js",
    "sections.js",
    "order.js",
    "grid.js",
    "audit.js",
    "shell.js",
)
"""In the order in which they are joined."""


@dataclass(frozen=True)
class Headline:
    """What comes first."""

    state: Literal["good", "bad", "plain"]
    title: str
    facts: Sequence[tuple[str, str]]
    """What, and what it is."""


@dataclass(frozen=True)
class Drifted:
    """Features of one SAE that mean something else now, as :class:`DriftedFeature` has them."""

    title: str
    features: Sequence[Json]


@dataclass(frozen=True)
class AuditPage:
    """All that is shown."""

    created: str
    """When, in UTC, ISO 8601."""
    title: str
    lede: str
    headline: Headline | None
    """None of checkpoints alone."""
    provenance: Sequence[FactGroup]
    order: str
    features: Sequence[Json]
    """As :class:`~cleansteer.core.records.audit.AuditedFeature` has them; empty of checkpoints alone."""
    before: Sequence[ReportSection]
    """Sections in front of the table of features, and behind it."""
    behind: Sequence[ReportSection]
    drifted: Sequence[Drifted]


def write_audit(found: AuditRecord | MovementRecord, out: str | Path) -> None:
    """Write what an audit found as one HTML file that needs no network, in the style of the report.

    Args:
        found: what :func:`cleansteer.audit` or :func:`cleansteer.audit_checkpoints` returned.
        out: the file.

    Raises:
        InputError: ``out`` is a directory, or would lie in a file.

    """
    check_file(Path(out), "--html")
    write_text(Path(out), bundle(SCRIPTS, page_of(found)))


def page_of(found: AuditRecord | MovementRecord) -> AuditPage:
    """What the page of an audit shows."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    moved = found if isinstance(found, MovementRecord) else None
    audit = found.last if isinstance(found, MovementRecord) else found
    movement = [] if moved is None else [movement_section(moved)]
    if audit is None:
        assert moved is not None
        first, last = moved.adapters[0].path, moved.adapters[-1].path
        return AuditPage(
            created=created,
            title=_name(last),
            lede=f"{moved.component} on {moved.n_features} features, in {len(moved.adapters)} adapters "
            f"of one training, from {first} to {last}.",
            headline=None,
            provenance=[],
            order="size",
            features=[],
            before=movement,
            behind=[],
            drifted=[],
        )
    effects, pairs = effects_section(audit), pairs_section(audit)
    return AuditPage(
        created=created,
        title=_name(audit.adapter),
        lede=_lede(audit),
        headline=_headline(audit),
        provenance=_provenance(audit),
        order=audit.order,
        features=[each.model_dump(mode="json") for each in audit.features],
        before=[] if effects is None else [effects],
        behind=[
            *([] if audit.form is None else [form_section(audit.form)]),
            *([] if pairs is None else [pairs]),
            *movement,
            *([] if audit.meaning is None else [meaning_section(audit.meaning)]),
        ],
        drifted=_drifted(audit),
    )


def _name(path: str) -> str:
    return Path(path).name or path


def _lede(audit: AuditRecord) -> str:
    places = [f"SAE {_short(place.sae)} at {place.hook}" for place in audit.places or ()]
    of = f" of {', '.join(places)}" if places else ""
    model = "" if audit.model is None else f", in {_short(audit.model)}"
    return f"An adapter: {audit.component} on {audit.n_features} features{of}{model}."


def _short(path: str) -> str:
    """The last two parts of a path, or all of another name."""
    parts = Path(path).parts
    return str(Path(*parts[-2:])) if Path(path).is_absolute() else path


def _headline(audit: AuditRecord) -> Headline:
    facts = []
    changed = f"{audit.n_changed} of {audit.n_features}"
    if audit.n_silent:
        changed += f", {audit.n_silent} of them silent on the data"
    facts.append(("Features changed", changed))
    title: str = f"{audit.n_changed} features changed"
    state: Literal["good", "bad", "plain"] = "plain"
    if audit.loss_with is not None and audit.loss_without is not None:
        fall = audit.loss_without - audit.loss_with
        state = "good" if fall > 0 else "bad"
        way = "lowers" if fall > 0 else "raises"
        title = f"The adapter {way} the loss by {abs(fall):.3f} nats a token"
        losses = f"{audit.loss_without:.4f} without, {audit.loss_with:.4f} with the adapter"
        facts.append((f"Loss on {audit.n_tokens or 0:,} tokens", losses))
    if audit.kl is not None:
        facts.append(("KL on the reference", f"{audit.kl:.4g} nats a token"))
    if audit.form is not None:
        shares = (told_share(each.form) for each in (audit.form.edit, audit.form.dictionary))
        facts.append(
            ("Share of form", "{} of the edit, {} of the dictionary's activity".format(*shares))
        )
    for each in audit.meaning or ():
        groups = {"others": each.others, "edited": each.edited}
        for name, group in ({"downstream": each.others} if each.downstream else groups).items():
            if group is not None and group.overlap is not None:
                told = f"{told_share(group.overlap)} ({group.n_judged:,} features, {each.hook})"
                facts.append((f"Contexts kept, {name}", told))
    return Headline(state, title, facts)


def _provenance(audit: AuditRecord) -> list[FactGroup]:
    items = [("adapter", audit.adapter), ("component", audit.component)]
    items += [] if audit.model is None else [("model", audit.model)]
    for place in audit.places or ():
        items += [("at", place.hook), ("SAE", place.sae)]
        items += [] if place.fingerprint is None else [("its fingerprint", place.fingerprint)]
    measured = [("features in the order of", audit.order)]
    if audit.n_tokens is not None:
        measured.append(("loss on", f"{audit.n_tokens:,} tokens"))
    for each in audit.meaning or ():
        measured.append(("meaning at", each.hook))
        measured.append(("of SAE", each.sae))
        measured.append(("on", f"{each.n_tokens:,} tokens of {each.n_texts} texts"))
    return [FactGroup("The adapter", items), FactGroup("The audit", measured)]


def _drifted(audit: AuditRecord) -> list[Drifted]:
    found = []
    for each in audit.meaning or ():
        whose = "downstream" if each.downstream else "other" if each.others else "edited"
        features = [feature.model_dump(mode="json") for feature in each.drifted]
        if features:
            found.append(Drifted(f"Most drifted {whose} features at {each.hook}", features))
    return found
