"""An audit of an adapter, from its directory to a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..adapters.encoding import reference_texts
from ..adapters.examples import Examples, read_examples
from ..adapters.reference import divergence, reference_rows
from ..core.errors import InputError
from ..core.layout import DOSE_FORECAST, DOSES, MANIFEST, RANKING
from ..core.models import wrap_model
from ..core.progress import Reporter
from ..core.records.audit import Agreement, AuditedFeature, AuditRecord
from ..core.runs import RunDirectory
from ..core.settings import Setting
from ..core.training import TrainingOptions
from ..naming.measured import told_tokens
from ..naming.source import read_descriptions
from ..predictor.evidence.resampling import bootstrap, resampled_spearman
from ..predictor.evidence.scores import spearman
from .changes import ORDERS, Losses, list_features, measure, part_at, switch_off
from .contexts import Strongest, strongest_contexts
from .pairs import strongest_pairs
from .subject import Subject, open_adapter
from .task import Task, read_task

MOST_TOKENS = 8192
"""Tokens of the data that are looked at."""
_RESAMPLES = 2000
_TOKENS = 10
_CHANGED = 1e-12


@dataclass(frozen=True)
class Request:
    """What is asked of an audit."""

    adapter: Path
    data: Path | None = None
    """Examples of the task; None: nothing is measured on data."""
    reference: Path | None = None
    """Texts that KL is measured on."""
    setting: Setting | None = None
    run: Path | None = None
    """A run of the adapter's SAE, for predicted and measured modularity and recommended strengths."""
    descriptions: str | Path | None = None
    order: str | None = None
    """One of :data:`.changes.ORDERS`; None: the first that can be measured."""
    top: int = 20
    sample: int = 30
    """How many features are switched off one by one."""
    seed: int = 0
    device: str = "cpu"


def audit_adapter(request: Request, out: Reporter) -> AuditRecord:
    """Look at what an adapter changes.

    Raises:
        InputError: something that is given cannot be used, or does not belong to the adapter.

    """
    order = _order(request)
    data = None if request.data is None else _examples(request.data)
    texts = None if request.reference is None else read_examples(request.reference, "sft")
    run = None if request.run is None else _open_run(request.run)
    subject = open_adapter(request.adapter, request.setting, request.device)
    _check_run(run, subject)
    options = TrainingOptions() if subject.record is None else subject.record.options
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
    table = _ordered(table[table["size"] > _CHANGED], order)
    agreement = None
    if task is not None and losses is not None and len(table):
        agreement = _switch_off(subject, task, table, losses, request, out)
    shown = table.head(request.top)
    contexts = None if task is None else strongest_contexts(subject, task, shown)
    pairs = None if task is None else strongest_pairs(subject, task)
    kl = None
    if texts is not None:
        rows = reference_rows(
            subject.model.get_base_model(),
            subject.tokenizer,
            reference_texts(texts.rows, subject.tokenizer),
            options.max_length,
            options.bos,
        )
        kl = divergence(subject.model, rows)[0]
    names = _names(subject, shown, request.descriptions, out)
    n_features = sum(part_at(subject.model, target.hook).n_features for target in subject.targets)
    features = _features(subject, shown, contexts, names, run)
    return AuditRecord(
        adapter=str(request.adapter),
        component=subject.component,
        n_features=n_features,
        n_changed=len(table),
        n_silent=None if task is None else int((table["edited"] == 0).sum()),
        order=order,
        n_tokens=None if task is None else task.n_tokens,
        loss_without=None if losses is None else losses.without,
        loss_with=None if losses is None else losses.with_all,
        kl=kl,
        agreement=agreement,
        features=features,
        pairs=pairs or None,
    )


def _order(request: Request) -> str:
    order = request.order or ("size" if request.data is None else ORDERS[0])
    if order not in ORDERS:
        raise InputError(
            f"--by {order!r} is not known; expected one of {', '.join(ORDERS)}; choose one"
        )
    if order != "size" and request.data is None:
        raise InputError(f"--by {order} is measured on data; expected --data as well; give it")
    return order


def _examples(path: Path) -> Examples:
    """Examples of any of the kinds that adapters are trained on."""
    try:
        return read_examples(path, "sft")
    except InputError:
        try:
            return read_examples(path, "dpo")
        except InputError:
            pass
        raise


def _ordered(table: pd.DataFrame, order: str) -> pd.DataFrame:
    found = table.sort_values(order, key=lambda v: -v.abs(), kind="stable")
    return found.reset_index(drop=True)


def _switch_off(
    subject: Subject,
    task: Task,
    table: pd.DataFrame,
    losses: Losses,
    request: Request,
    out: Reporter,
) -> Agreement | None:
    """Switch off features from the top of the order, and as many drawn from the rest."""
    audible = table.index[table["edited"] > 0].to_numpy()
    if len(audible) > request.sample:
        first = audible[: request.sample // 2]
        rest = audible[request.sample // 2 :]
        drawn = np.random.default_rng(request.seed).choice(
            rest, request.sample - len(first), replace=False
        )
        audible = np.sort(np.concatenate([first, drawn]))
    table["switched_off"] = np.nan
    if not len(audible):
        return None
    rows = table.loc[audible]
    with out.bar("switching off", len(rows)) as tick:
        measured = switch_off(subject, task, rows, losses.with_all, tick)
    table.loc[audible, "switched_off"] = measured
    if len(audible) < 3:
        return None
    forecast = rows["attribution"].to_numpy()
    counts = bootstrap(len(audible), _RESAMPLES, request.seed)
    low, high = np.quantile(resampled_spearman(forecast, measured, counts), [0.025, 0.975])
    return Agreement(
        n=len(audible), spearman=spearman(forecast, measured), low=float(low), high=float(high)
    )


def _open_run(path: Path) -> RunDirectory:
    if not (path / MANIFEST).is_file():
        raise InputError(f"--run {path} holds no run; expected a screened run; correct the name")
    run = RunDirectory.existing(path)
    if not run.has(RANKING):
        raise InputError(f"--run {path} has no ranking yet; expected a screened run; screen it")
    return run


def _check_run(run: RunDirectory | None, subject: Subject) -> None:
    known = None if run is None else run.manifest.fingerprints
    if run is None or known is None:
        return
    if all(target.fingerprint != known.sae for target in subject.targets):
        raise InputError(
            f"--run {run.path} is of SAE {run.setting().sae.label} ({known.sae}), the adapter edits "
            f"another ({subject.targets[0].fingerprint}); expected a run of the adapter's SAE; give "
            "that, or leave --run out"
        )


def _names(
    subject: Subject, shown: pd.DataFrame, given: str | Path | None, out: Reporter
) -> dict[tuple[str, int], str]:
    """Descriptions by hook and feature."""
    if given is None:
        return {}
    names: dict[tuple[str, int], str] = {}
    for target in subject.targets:
        wanted = [int(f) for f in shown.loc[shown["hook"] == target.hook, "feature"]]
        if wanted:
            n_features = _n_features_of(target)
            found = read_descriptions(given, target.sae, n_features, wanted, out)
            names |= {(target.hook, feature): text for feature, text in found.items()}
    return names


def _n_features_of(target: Any) -> int:
    from ..adapters.opening import open_at

    return int(open_at(target.hook, target.sae, Path.cwd())[0].cfg.d_sae)


def _features(
    subject: Subject,
    shown: pd.DataFrame,
    contexts: Sequence[Strongest] | None,
    names: Mapping[tuple[str, int], str],
    run: RunDirectory | None,
) -> list[AuditedFeature]:
    promoted = _promoted(subject, shown)
    modular = _modularity(run)
    measured = ("latent", "residual", "fires", "edited", "attribution", "switched_off")
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
        if promoted is not None:
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


@torch.no_grad()
def _promoted(subject: Subject, shown: pd.DataFrame) -> list[tuple[list[str], list[str]]] | None:
    """Tokens that each decoder direction raises and lowers most by itself (docs/protocol.md, Direct
    logits); None where TransformerLens' bridge does not know the model, or a place is no part of the
    stream.
    """
    if not len(shown) or any(hook.endswith("hook_z") for hook in shown["hook"]):
        return None
    rows = torch.stack(
        [
            part_at(subject.model, str(hook)).decoder[int(position)]
            for hook, position in zip(shown["hook"], shown["position"], strict=True)
        ]
    )
    network: Any = subject.model.unload()
    try:
        model = wrap_model(network, subject.tokenizer, device=str(rows.device))
    except InputError:
        return None
    footprint = rows.float() @ model.processed_unembedding().float()
    found = []
    for each in footprint:
        ends = (each.topk(_TOKENS).indices, (-each).topk(_TOKENS).indices)
        raised, lowered = ([subject.tokenizer.decode([i]) for i in end.tolist()] for end in ends)
        found.append((raised, lowered))
    return found


def _modularity(run: RunDirectory | None) -> dict[int, dict[str, float]]:
    """What a run says of its features."""
    if run is None:
        return {}
    columns = ["predicted_clean_score", "measured_clean_score"]
    table = run.table(RANKING, ("feature", "predicted_clean_score")).set_index("feature")
    table = table[[name for name in columns if name in table]]
    for name in (DOSE_FORECAST, DOSES):
        if run.has(name):
            doses = run.table(name, ("feature", "recommended_coefficient"))
            table["recommended_coefficient"] = doses.set_index("feature")["recommended_coefficient"]
            break
    return {
        int(str(feature)): {
            str(name): float(value) for name, value in row.items() if value == value
        }
        for feature, row in table.to_dict("index").items()
    }
