"""How much of an edit is on features of form, and how much on features of content.

With a_f(t) the activation of feature f at token t before the edit, and a token of form as
:class:`.form.Kinds` tells it (layout, punctuation, function words), the form share of a feature is

    s_f = sum over tokens t of form of a_f(t) / sum over all tokens of a_f(t).

That of the edit is the mean of s_f over the changed features that fire, weighted by r_f, the norm that
f's edit adds to the stream, mean over tokens. It is told beside that of the dictionary, the same over all
features, weighted by |d_f| times the mean of a_f: what an edit would have that takes every feature as
strongly as it is active. Tokens are those of the texts but for BOS at a start.

Intervals are of 95 %, by resampling the texts, in 32 groups where there are more. They hold the features
and the tokens' kinds fixed; they say nothing of other kinds of text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..adapters.layer import find_layer, part_at
from ..adapters.objective import ADAPTER
from ..adapters.padding import Row, batches, padded
from ..adapters.places import text_config
from ..adapters.positions import starts_of
from ..core.records.figures import Interval
from ..core.records.form import FormRecord, FormShares
from ..predictor.evidence.resampling import bootstrap
from ..predictor.evidence.scores import percentile_interval
from .form import CONTENT, KINDS, Kinds
from .gates import Gate, gated
from .meaning import Compared
from .peaks import latents_of
from .streams import watched
from .subject import Subject

Array = NDArray[np.float64]

_GROUPS = 32
_RESAMPLES = 1000
_ALL_KINDS = CONTENT + 1


@dataclass
class _Place:
    """Sums over tokens at one hook point."""

    sae: Compared
    changed: Tensor
    """Changed features, by their index within the adapter."""
    features: Tensor
    """The same, by their index in the SAE."""
    active: Tensor
    """Activations, ``[group, kind, changed]``."""
    edited: Tensor
    """Norms of what is added to the stream, ``[group, changed]``."""
    mass: Tensor
    """Activations of all features times the norms of their decoders, ``[group, kind]``."""


@torch.no_grad()
def measure_form(
    subject: Subject,
    rows: Sequence[Row],
    table: pd.DataFrame,
    saes: Sequence[Compared],
    seed: int,
    tick: Callable[[int], object] = lambda _: None,
) -> tuple[FormRecord | None, Array]:
    """The form share of an edit, and of each changed feature (NaN where it does not fire).

    Args:
        subject: the adapter.
        rows: texts as tokens.
        table: changed features, with ``hook``, ``feature`` and ``position``, their index within
            the target.
        saes: the adapter's own, whole.
        seed: of the resampling.
        tick: called with the number of texts done.

    Returns:
        None in place of the record where no changed feature fires, or nothing is edited.

    """
    n_groups = min(len(rows), _GROUPS)
    places = [_place(sae, table[table["hook"] == sae.target.hook], n_groups) for sae in saes]
    counts = torch.zeros(_ALL_KINDS, dtype=torch.int64)
    model: Any = subject.model
    first = starts_of(text_config(model.get_base_model()))
    hooks = [sae.target.hook for sae in saes]
    reader, number = Kinds(subject.tokenizer), 0
    with gated(model, hooks) as gates, watched(model, hooks, edited=False) as seen:
        for batch in batches(rows):
            given = padded(batch, next(model.parameters()).device)
            model(**given, use_cache=False)
            for at, row in enumerate(batch):
                ids = list(row["input_ids"])
                within = slice(int(ids[0] in first), len(ids))
                kinds = torch.tensor(reader.of(ids)[within], dtype=torch.int64)
                counts += torch.bincount(kinds, minlength=_ALL_KINDS)
                for place in places:
                    hook = place.sae.target.hook
                    edit = _edit(model, hook, gates[hook], at, within)
                    values = seen[hook][at, within]
                    _add(place, (number + at) % n_groups, kinds, values, edit)
            number += len(batch)
            tick(len(batch))
    active = torch.cat([place.active for place in places], dim=2).double().numpy()
    edited = torch.cat([place.edited for place in places], dim=1).double().numpy()
    mass = torch.stack([place.mass for place in places]).sum(dim=0).numpy()
    shares = np.full(len(table), np.nan)
    for place in places:
        here = (table["hook"] == place.sae.target.hook).to_numpy()
        shares[here] = _share(place.active.double().sum(dim=0).numpy())
    record = _record(active, edited, mass, counts.numpy(), len(rows), seed)
    return record, shares


def _place(sae: Compared, changed: pd.DataFrame, n_groups: int) -> _Place:
    n = len(changed)
    return _Place(
        sae,
        torch.tensor(changed["position"].tolist(), dtype=torch.int64),
        torch.tensor(changed["feature"].tolist(), dtype=torch.int64),
        torch.zeros(n_groups, _ALL_KINDS, n),
        torch.zeros(n_groups, n),
        torch.zeros(n_groups, _ALL_KINDS, dtype=torch.float64),
    )


def _edit(model: Any, hook: str, gate: Gate, at: int, within: slice) -> Tensor:
    """Norms of what is added to the stream at the tokens of a text, ``[token, feature]``."""
    assert gate.edit is not None
    layer, _ = find_layer(model, hook)
    chosen = layer.tokens(ADAPTER)
    n_tokens = within.stop - within.start
    edit: Tensor = gate.edit if gate.edit.ndim == 1 else gate.edit[at, within]
    norms = part_at(model, hook, ADAPTER).decoder.norm(dim=-1)
    edit = edit.abs().expand(n_tokens, -1) * norms
    if chosen is not None:
        edit = edit * chosen[at, within, None].to(edit.device)
    return edit


def _add(place: _Place, group: int, kinds: Tensor, values: Tensor, edit: Tensor) -> None:
    """Add a text."""
    place.edited[group] += edit.sum(dim=0).cpu()[place.changed]
    part = place.sae.part
    norms = part.decoder.norm(dim=-1)
    start = 0
    for latents in latents_of(part, values):
        some = kinds[start : start + len(latents)]
        start += len(latents)
        which = torch.nn.functional.one_hot(some, _ALL_KINDS).to(latents)
        chosen = latents[:, place.features.to(latents.device)]
        place.active[group] += (which.T @ chosen).cpu()
        place.mass[group] += (which.T @ (latents @ norms)).double().cpu()


def _share(active: Array) -> Array:
    """Of each feature the share of its activation that is at tokens of form, from ``[kind, feature]``."""
    total, form = active.sum(axis=0), active[:CONTENT].sum(axis=0)
    return np.asarray(np.divide(form, total, out=np.full(len(total), np.nan), where=total > 0))


def _record(
    active: Array, edited: Array, mass: Array, counts: NDArray[np.int64], n_texts: int, seed: int
) -> FormRecord | None:
    total = float(edited.sum())
    fires = active.sum(axis=(0, 1)) > 0
    active, edited = active[:, :, fires], edited[:, fires]
    if not edited.sum() or not mass.sum():
        return None
    weights = edited.sum(axis=0)
    whole = active.sum(axis=0)
    by_kind = (weights * whole / whole.sum(axis=0)).sum(axis=1) / weights.sum()
    intervals: dict[str, Interval] = {}
    if len(edited) > 1:
        drawn = bootstrap(len(edited), _RESAMPLES, seed)
        both = np.stack([active[:, :CONTENT].sum(axis=1), active.sum(axis=1)], axis=1)
        ours = np.array([_resampled(both, edited, each) for each in drawn])
        masses = drawn @ mass
        theirs = masses[:, :CONTENT].sum(axis=1) / masses.sum(axis=1)
        form, usual = by_kind[:CONTENT].sum(), mass[:, :CONTENT].sum() / mass.sum()
        intervals = {
            "edit_interval": percentile_interval(form, ours),
            "dictionary_interval": percentile_interval(usual, theirs),
            "difference": percentile_interval(form - usual, ours - theirs),
        }
    return FormRecord(
        n_texts=n_texts,
        n_tokens=int(counts.sum()),
        tokens=_shares(counts / counts.sum()),
        edit=_shares(by_kind),
        dictionary=_shares(mass.sum(axis=0) / mass.sum()),
        covered=float(edited.sum() / total),
        **intervals,
    )


def _resampled(active: Array, edited: Array, counts: Array) -> float:
    """The edit's share in a resample of the groups, from ``[group, (form, all), feature]``; NaN where
    nothing that it edits fires there.
    """
    form, whole = np.tensordot(counts, active, 1)
    there = whole > 0
    weights = (counts @ edited)[there]
    total = weights.sum()
    return float(weights @ (form[there] / whole[there]) / total) if total > 0 else float("nan")


def _shares(by_kind: Array) -> FormShares:
    found = {name: float(by_kind[at]) for at, name in enumerate(KINDS)}
    return FormShares(form=sum(found.values()), **found)
