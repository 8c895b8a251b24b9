"""Whether features still mean what they meant, on reference text.

Of every feature f of an SAE, z_f(x) in the model without the adapter and z_f(x') in the model with it
are compared over the same tokens, BOS at the start of a text left out:

- its mean activation, before m_f and after m'_f;
- its overlap, |A_f & B_f| / k, A_f the k = 10 contexts in which it is most active before and B_f those
  after, at most one token of each text. It is judged of features that fire in k texts at least, before
  the edit: 1 where the strongest contexts are the same, whatever their activations, and 0 where none
  is.

Of a group D of features (those that may be edited, all others, all of an SAE behind the edit):

    overlap = mean of the overlaps of its judged features, each counted once,
    shift = sum over f in D of |m'_f - m_f| / sum over f in D of m_f.

At the edited hook other features move only as the edit's direction moves their pre-activation; behind
it, layers that are not linear lie in between.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from ..adapters.config import Target
from ..adapters.model import load_target
from ..adapters.opening import open_shared
from ..adapters.padding import batches, padded, plain_row
from ..adapters.places import decoder_layers, text_config
from ..adapters.positions import starts_of
from ..adapters.slices import Slice
from ..core.errors import InputError
from ..core.progress import Reporter
from ..core.saes import hook_of
from ..core.settings import Setting
from ..core.sites import parse_site
from .peaks import Peaks
from .streams import watched
from .subject import Subject

CONTEXTS = 10
"""k: how many of a feature's contexts are compared."""
MOST_TOKENS = 1 << 15
"""After so many tokens of the reference no further text is begun."""


@dataclass(frozen=True)
class Compared:
    """An SAE whose features are compared."""

    target: Target
    """Its place and source."""
    part: Slice
    """All of it."""
    allowed: frozenset[int]
    """The features that the adapter may edit."""
    downstream: bool
    """True where it lies behind the edit."""


@dataclass(frozen=True)
class Meanings:
    """Of one SAE's features, before and after."""

    sae: Compared
    before: Peaks
    after: Peaks
    starts: Sequence[int]
    """The number of each text's first token, BOS included, among those of all."""

    @property
    def n_tokens(self) -> int:
        """How many were looked at."""
        return self.before.n_tokens

    def table(self) -> pd.DataFrame:
        """A row a feature, with the columns of docs/files.md, meaning.parquet."""
        n_features = self.sae.part.n_features
        kept = self.before.common(self.after).double()
        kept[self.before.texts < CONTEXTS] = torch.nan
        columns: dict[str, Any] = {
            "hook": self.sae.target.hook,
            "downstream": self.sae.downstream,
            "feature": range(n_features),
            "allowed": [feature in self.sae.allowed for feature in range(n_features)],
        }
        for name in ("before", "after"):
            peaks: Peaks = getattr(self, name)
            columns[name] = (peaks.sums / self.n_tokens).numpy()
            columns[f"fires_{name}"] = (peaks.fires.double() / self.n_tokens).numpy()
            columns[f"texts_{name}"] = peaks.texts.numpy()
        columns["overlap"] = (kept / CONTEXTS).numpy()
        return pd.DataFrame(columns)


def own_saes(subject: Subject) -> list[Compared]:
    """The SAEs through which an adapter edits, whole."""
    base, found = subject.model.get_base_model(), []
    for target in subject.targets:
        part = load_target(target.with_features(None), base).part
        allowed = range(part.n_features) if target.features is None else target.features
        found.append(_moved(subject, Compared(target, part, frozenset(allowed), downstream=False)))
    return found


def sae_behind(subject: Subject, setting: Setting | None, out: Reporter) -> list[Compared]:
    """A setting's downstream SAE, where it can be had and lies behind an edit.

    Args:
        subject: the adapter.
        setting: names it; None: there is none.
        out: told why it is left out.

    """
    if setting is None:
        return []
    try:
        with subject.model.disable_adapter():
            found = _behind(subject, setting)
    except InputError as error:
        out.warn(f"the downstream SAE of {setting.name} is left out: {error}")
        return []
    return [] if found is None else [_moved(subject, found)]


def _moved(subject: Subject, sae: Compared) -> Compared:
    """The same where the model is."""
    device = next(subject.model.parameters()).device
    return replace(sae, part=sae.part.to(device))


def _behind(subject: Subject, setting: Setting) -> Compared | None:
    base, source = subject.model.get_base_model(), setting.downstream_sae
    sae, fingerprint = open_shared(source, setting.folder)
    target = Target.of(source, setting.folder, hook_of(sae, source), None, fingerprint)
    n_layers = len(decoder_layers(base)[1])
    first = min(parse_site(each.hook, n_layers).order for each in subject.targets)
    known = {(each.hook, each.fingerprint) for each in subject.targets}
    if (target.hook, fingerprint) in known or parse_site(target.hook, n_layers).order < first:
        return None
    return Compared(target, load_target(target, base).part, frozenset(), downstream=True)


def first_texts(rows: Sequence[list[int]], most: int = MOST_TOKENS) -> list[list[int]]:
    """The first texts; after so many tokens no further one is begun."""
    some, count = [], 0
    for row in rows:
        if count >= most:
            break
        some.append(row)
        count += len(row)
    return some


@torch.no_grad()
def measure_meaning(
    subject: Subject,
    rows: Sequence[list[int]],
    saes: Sequence[Compared],
    tick: Callable[[int], object] = lambda _: None,
) -> list[Meanings]:
    """Strongest contexts and means of all features of some SAEs, in the model without the adapter and in
    the model with it.

    Args:
        subject: the adapter.
        rows: texts as tokens.
        saes: what is compared.
        tick: called with the number of texts done.

    """
    model: Any = subject.model
    first = starts_of(text_config(model.get_base_model()))
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row))
    found = []
    for sae in saes:
        before, after = (Peaks(sae.part.n_features, CONTEXTS) for _ in range(2))
        found.append(Meanings(sae, before, after, starts))
    number = 0
    with watched(model, [sae.target.hook for sae in saes], edited=True) as seen:
        for batch in batches([plain_row(row) for row in rows]):
            given = padded(batch, next(model.parameters()).device)
            for is_after, state in enumerate((model.disable_adapter, nullcontext)):
                with state():
                    model(**given, use_cache=False)
                for each in found:
                    peaks = each.after if is_after else each.before
                    values = seen[each.sae.target.hook]
                    for at, text in enumerate(batch):
                        ids = text["input_ids"]
                        skipped = int(ids[0] in first)
                        there = values[at, skipped : len(ids)]
                        peaks.add(each.sae.part, there, starts[number + at] + skipped)
            number += len(batch)
            tick(len(batch))
    return found
