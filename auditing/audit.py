"""An audit of an adapter, from its directory to a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..adapters.examples import Examples
from ..adapters.layer import part_at
from ..adapters.objective import ADAPTER
from ..adapters.opening import opened_once
from ..adapters.padding import plain_row
from ..core.errors import InputError
from ..core.progress import Reporter
from ..core.records.audit import Agreement, AuditedFeature, AuditedPlace, AuditRecord
from ..core.records.form import FormRecord
from ..core.runs import RunDirectory
from ..core.settings import Setting
from ..naming.measured import told_tokens
from ..naming.several import Source
from ..predictor.evidence.resampling import bootstrap, resampled_spearman
from ..predictor.evidence.scores import spearman
from .changes import CHANGED, ORDERS, Losses, list_features, measure, switch_off
from .contexts import Strongest, strongest_contexts
from .elsewhere import Elsewhere, look_elsewhere, read_reference
from .known import check_run, modularity, names_by_feature, open_run, promoted_tokens
from .meaning import Compared, first_texts, own_saes, sae_behind
from .pairs import strongest_pairs
from .style import measure_form
from .subject import Subject, open_adapter, options_of
from .task import Task, read_task

MOST_TOKENS = 8192
"""Tokens of the data that are looked at."""
_RESAMPLES = 2000


@dataclass(frozen=True)
class Audit:
    """What is asked of an audit."""

    adapter: Path
    data: Examples | None = None
    """Of the task; None: nothing is measured on data."""
    reference: Examples | None = None
    """Texts that KL and the features' meaning are measured on."""
    setting: Setting | None = None
    run: Path | None = None
    """A run of the adapter's SAE, for predicted and measured modularity and recommended strengths."""
    descriptions: Source | None = None
    meaning: Path | None = None
    """Where a table of every feature's meaning is written."""
    order: str | None = None
    """One of :data:`.changes.ORDERS`; None: the first that can be measured."""
    top: int = 20
    sample: int = 30
    """How many features are switched off one by one."""
    seed: int = 0
    device: str = "cpu"


def audit_adapter(asked: Audit, out: Reporter) -> AuditRecord:
    """Look at what an adapter changes.

    Raises:
        InputError: something that is given cannot be used, or does not belong to the adapter.

    """
    order = _order(asked)
    with opened_once():
        return _audited(asked, order, out)


def _audited(asked: Audit, order: str, out: Reporter) -> AuditRecord:
    data = asked.data
    run = None if asked.run is None else open_run(asked.run)
    subject = open_adapter(asked.adapter, asked.setting, asked.device)
    check_run(run, subject)
    options = options_of(subject)
    losses: Losses | None = None
    task: Task | None = None
    if data is None:
        table = list_features(subject)
    else:
        base = subject.model.get_base_model()
        task = read_task(data, base, subject.tokenizer, options, MOST_TOKENS)
        with out.bar("attribution", len(task.rows)) as tick:
            table, losses = measure(subject, task, tick)
    table["position"] = table.groupby("hook", sort=False).cumcount()
    table = _ordered(table[table["size"] > CHANGED], order)
    agreement = None
    if task is not None and len(table):
        agreement = _switch_off(subject, task, table, asked, out)
    rows = None if asked.reference is None else read_reference(subject, asked.reference)
    saes = [] if task is None and rows is None else own_saes(subject)
    form = _form(subject, task, rows, table, saes, asked, out)
    shown = table.head(asked.top)
    contexts = None if task is None else strongest_contexts(subject, task, shown)
    pairs = None if task is None else strongest_pairs(subject, task)
    reference: Elsewhere | None = None
    if rows is not None:
        behind = sae_behind(subject, asked.setting if run is None else run.setting(), out)
        reference = look_elsewhere(subject, rows, [*saes, *behind], asked.top, out)
    tables = [shown] if reference is None else [shown, *reference.named]
    wanted = [
        (str(hook), int(feature))
        for each in tables
        for hook, feature in zip(each["hook"], each["feature"], strict=True)
    ]
    names = names_by_feature(subject.targets, wanted, asked.descriptions, out)
    if reference is not None:
        shown = reference.beside(shown)
    places = [
        AuditedPlace(
            hook=target.hook,
            sae=target.sae.label,
            fingerprint=target.fingerprint,
            n_features=part_at(subject.model, target.hook, ADAPTER).n_features,
        )
        for target in subject.targets
    ]
    meaning = None if reference is None else reference.records(subject, names)
    features = _features(subject, shown, contexts, names, run)
    if reference is not None and asked.meaning is not None:
        reference.write(asked.meaning)
    return AuditRecord(
        adapter=str(asked.adapter),
        model=subject.source,
        places=places,
        component=subject.component,
        n_features=sum(place.n_features for place in places),
        n_changed=len(table),
        n_silent=None if task is None else int((table["edited"] == 0).sum()),
        order=order,
        n_tokens=None if task is None else task.n_tokens,
        loss_without=None if losses is None else losses.without,
        loss_with=None if losses is None else losses.with_all,
        kl=None if reference is None else reference.kl,
        form=form,
        meaning=meaning,
        agreement=agreement,
        features=features,
        pairs=pairs or None,
    )


def _form(
    subject: Subject,
    task: Task | None,
    rows: Sequence[list[int]] | None,
    table: pd.DataFrame,
    saes: Sequence[Compared],
    asked: Audit,
    out: Reporter,
) -> FormRecord | None:
    """How much of the edit is on form, on the data or else the reference; shares by feature go into the
    table.
    """
    if not saes or not len(table):
        return None
    plain = [plain_row(row) for row in first_texts(rows or [], MOST_TOKENS)]
    texts = plain if task is None else task.rows
    with out.bar("form", len(texts)) as tick:
        found, table["form"] = measure_form(subject, texts, table, saes, asked.seed, tick)
    return found


def _order(asked: Audit) -> str:
    order = asked.order or ("size" if asked.data is None else ORDERS[0])
    if order not in ORDERS:
        raise InputError(
            f"--by {order!r} is not known; expected one of {', '.join(ORDERS)}; choose one"
        )
    if order != "size" and asked.data is None:
        raise InputError(f"--by {order} is measured on data; expected --data as well; give it")
    return order


def _ordered(table: pd.DataFrame, order: str) -> pd.DataFrame:
    found = table.sort_values(order, key=lambda v: -v.abs(), kind="stable")
    return found.reset_index(drop=True)


def _switch_off(
    subject: Subject,
    task: Task,
    table: pd.DataFrame,
    asked: Audit,
    out: Reporter,
) -> Agreement | None:
    """Switch off features from the top of the order, and as many drawn from the rest."""
    audible = table.index[table["edited"] > 0].to_numpy()
    if len(audible) > asked.sample:
        first = audible[: asked.sample // 2]
        rest = audible[asked.sample // 2 :]
        drawn = np.random.default_rng(asked.seed).choice(
            rest, asked.sample - len(first), replace=False
        )
        audible = np.sort(np.concatenate([first, drawn]))
    table["switched_off"] = np.nan
    if not len(audible):
        return None
    rows = table.loc[audible]
    with out.bar("switching off", task.n_batches) as tick:
        measured = switch_off(subject, task, rows, tick)
    table.loc[audible, "switched_off"] = measured
    if len(audible) < 3:
        return None
    forecast = rows["attribution"].to_numpy()
    counts = bootstrap(len(audible), _RESAMPLES, asked.seed)
    low, high = np.quantile(resampled_spearman(forecast, measured, counts), [0.025, 0.975])
    return Agreement(
        n=len(audible), spearman=spearman(forecast, measured), low=float(low), high=float(high)
    )


def _features(
    subject: Subject,
    shown: pd.DataFrame,
    contexts: Sequence[Strongest] | None,
    names: Mapping[tuple[str, int], str],
    run: RunDirectory | None,
) -> list[AuditedFeature]:
    promoted = promoted_tokens(subject, shown)
    modular = modularity(run)
    measured = (
        "latent",
        "residual",
        "fires",
        "edited",
        "attribution",
        "switched_off",
        "mean_before",
        "mean_after",
        "overlap",
        "form",
    )
    parameters = [
        name for name in shown if name not in ("hook", "feature", "size", "position", *measured)
    ]
    known = None if run is None or run.manifest.fingerprints is None else run.manifest.fingerprints
    of_run = {
        target.hook
        for target in subject.targets
        if known is not None and target.fingerprint == known.sae
    }
    features = []
    for at, row in enumerate(shown.to_dict("records")):
        hook, feature = str(row["hook"]), int(row["feature"])
        entries: dict[str, Any] = {
            name: float(row[name]) for name in measured if name in row and row[name] == row[name]
        }
        if "edited" in entries:
            entries["silent"] = entries["edited"] == 0
        if contexts is not None:
            entries["strongest"], entries["strongest_after"] = (
                contexts[at].before,
                contexts[at].after,
            )
        name = names.get((hook, feature))
        if name is None and contexts is not None:
            name = told_tokens([context.token for context in contexts[at].before]) or None
        if promoted is not None and any(promoted[at]):
            entries["promotes"], entries["demotes"] = promoted[at]
        if hook in of_run:
            entries |= modular.get(feature, {})
        features.append(
            AuditedFeature(
                hook=hook,
                feature=feature,
                description=name,
                parameters={
                    str(key): float(row[key]) for key in parameters if row[key] == row[key]
                },
                size=float(row["size"]),
                **entries,
            )
        )
    return features
