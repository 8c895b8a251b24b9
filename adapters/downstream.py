"""How many features downstream an edit moves."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .gradients import Site, edited
from .model import Fit
from .padding import batches, padded, plain_row
from .slices import FIRES
from .taps import tap

MOVED = 0.2
"""Of a feature's mean activation where it fires: a change above that counts."""
MOST_TOKENS = 4096


@torch.no_grad()
def count_moved(
    network: nn.Module,
    site: Site,
    learnt: Tensor,
    below: Fit,
    rows: Sequence[Sequence[int]],
    tick: Callable[[int], object] = lambda _: None,
) -> float:
    """How many features of a downstream SAE a linear edit moves on reference text, mean over tokens:
    those whose activation changes by more than 0.2 of their mean one where they fire.

    Args:
        network: a Hugging Face causal language model without adapters.
        site: where the edit is put.
        learnt: s of each of its features.
        below: the downstream SAE with all its features, in the model.
        rows: texts as tokens (see :func:`first_rows`).
        tick: called with the number of texts done.

    """
    device = next(network.parameters()).device
    passes = [padded(batch, device) for batch in batches([plain_row(row) for row in rows])]
    module = site.place.module_in(network.get_submodule(site.place.layer))
    change = partial(edited, site, learnt.to(site.part.decoder)[None, None], None)
    total, n_tokens = 0.0, 0
    clean = [_latents(network, below, given) for given in passes]
    together = torch.cat(clean)
    fires = together > FIRES
    usual = (together * fires).sum(dim=0) / fires.sum(dim=0).clamp(min=1)
    least = torch.where(usual > 0, MOVED * usual, torch.inf)
    for given, before in zip(passes, clean, strict=True):
        handle = tap(module, site.place.at_input, change, first=True)
        try:
            after = _latents(network, below, given)
        finally:
            handle.remove()
        total += float(((after - before).abs() > least).sum())
        n_tokens += len(before)
        tick(len(given["input_ids"]))
    return total / n_tokens


def first_rows(rows: Sequence[list[int]]) -> list[list[int]]:
    """The first texts; after 4,096 tokens no further one is begun."""
    some, count = [], 0
    for row in rows:
        some.append(row)
        count += len(row)
        if count >= MOST_TOKENS:
            break
    return some


def _latents(network: nn.Module, below: Fit, given: Mapping[str, Tensor]) -> Tensor:
    """Of the tokens of a batch, padding aside, ``[token, feature]``."""
    seen: list[Tensor] = []

    def see(values: Tensor) -> None:
        seen.append(values * below.place.factor)

    module = below.place.module_in(network.get_submodule(below.place.layer))
    handle = tap(module, below.place.at_input, see)
    try:
        asked = {name: given[name] for name in ("input_ids", "attention_mask")}
        network(**asked, use_cache=False)
    finally:
        handle.remove()
    values = seen[0][given["attention_mask"].bool()]
    return below.part.encode(below.part.read(values)[0])
