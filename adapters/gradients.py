"""Gradients by feature, text by text: what one backward pass tells of an edit before it is trained.

To second order in what a linear component learns (s, a number for each feature, 0 at the start),

    KL(model || model with s) = 1/2 s' F s      a token,
    F = 1/T sum over texts of g g',   g = d/ds sum over tokens of log p(y | x),

y being drawn at every token from the model's own prediction: tokens drawn independently have gradients
that are uncorrelated and of mean 0, so that the cross terms between the T tokens vanish in the mean
(F is Fisher's information; S. Amari, "Natural Gradient Works Efficiently in Learning", Neural
Computation 10 (1998), section 2). With the tokens that really follow in the place of y, g is the gradient
of the log likelihood.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from .encoding import IGNORED
from .padding import Row, batches, padded
from .places import Place, text_config
from .positions import Positions, Which, starts_of
from .slices import Slice
from .taps import tap


@dataclass(frozen=True)
class Site:
    """Where a linear edit is put, and which tokens it is put at."""

    place: Place
    part: Slice
    """The SAE's allowed features."""
    reads: bool
    """True for ``scale``: z' = z (1 + s); False for ``bias``: z' = z + s."""
    which: Which


@dataclass(frozen=True)
class TextGradients:
    """Gradients of the log probabilities of texts."""

    by_text: Float[Tensor, "text feature"]
    """Summed over the tokens of each text; float64, on the CPU."""
    n_tokens: int
    """How many tokens were predicted, of all texts together."""

    def of(self, indices: NDArray[np.int64]) -> "TextGradients":
        """The same of some features."""
        return replace(self, by_text=self.by_text[:, indices.tolist()])

    @property
    def mean(self) -> Float[Tensor, " feature"]:
        """Gradient of the log probability of a token, mean over tokens."""
        return self.by_text.sum(dim=0) / self.n_tokens

    @property
    def fisher(self) -> Float[Tensor, " feature"]:
        """Diagonal of F, where tokens are drawn."""
        return self.by_text.square().sum(dim=0) / self.n_tokens


def text_gradients(
    network: nn.Module,
    sites: Sequence[Site],
    rows: Sequence[Row],
    seed: int | None,
    tick: Callable[[int], object] = lambda _: None,
) -> TextGradients:
    """Gradients of the log probabilities of texts with respect to a linear edit, at none.

    Args:
        network: a Hugging Face causal language model without adapters; it is left as it was.
        sites: of the edit, one or several that edit the same tokens; the features of one stand behind
            those of the one before.
        rows: texts as tokens: ``input_ids``, and ``labels``, of which -100 are not predicted.
        seed: of the tokens that are drawn from the predictions; None: those that follow are taken.
        tick: called with the number of texts done.

    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    positions = Positions(starts_of(text_config(network)))
    found, total = [], 0
    for batch in batches(rows):
        given = padded(batch, next(network.parameters()).device)
        ids, labels, mask = (given[name] for name in ("input_ids", "labels", "attention_mask"))
        positions.see((), dict(given))
        which = sites[0].which
        chosen = None if which.every else positions.edited(which)
        learnt = [
            torch.zeros(len(ids), 1, site.part.n_features, device=ids.device, requires_grad=True)
            for site in sites
        ]
        hooks = [
            tap(
                site.place.module_in(network.get_submodule(site.place.layer)),
                site.place.at_input,
                partial(edited, site, each, chosen),
                first=True,
            )
            for site, each in zip(sites, learnt, strict=True)
        ]
        try:
            with torch.enable_grad():
                logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits
                logs = torch.log_softmax(logits[:, :-1].float(), dim=-1)
                counted = labels[:, 1:] != IGNORED
                following = _following(logs, labels[:, 1:], generator)
                said = logs.gather(2, following[..., None])[..., 0]
                (said * counted).sum().backward()
        finally:
            for hook in hooks:
                hook.remove()
        parts = [each.grad[:, 0].double().cpu() for each in learnt if each.grad is not None]
        found.append(torch.cat(parts, dim=1))
        total += int(counted.sum())
        tick(len(ids))
    return TextGradients(torch.cat(found), total)


def edited(site: Site, learnt: Tensor, chosen: Tensor | None, given: Tensor) -> Tensor:
    """What stands at the place, with a linear edit.

    Args:
        site: where it is put.
        learnt: s, ``[row, 1, feature]``; gradients reach it, and not what is read.
        chosen: True for the tokens that are edited, ``[row, token]``; None: all.
        given: what stands there.

    """
    values = given.detach()
    read, unit = site.part.read(values * site.place.factor)
    scaled = learnt
    if site.reads:
        with torch.no_grad():
            latents = site.part.encode(read)
        scaled = latents * learnt
    change = scaled @ site.part.decoder
    if unit is not None:
        change = change * unit
    if chosen is not None:
        change = change * chosen[..., None]
    return given + (change / site.place.factor).to(given.dtype)


@torch.no_grad()
def _following(logs: Tensor, labels: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return labels.clamp(min=0)
    # Drawn on the CPU, so that every device draws the same.
    flat = logs.detach().flatten(0, 1).exp().cpu()
    drawn = torch.multinomial(flat, 1, generator=generator)
    return drawn.view(logs.shape[:2]).to(logs.device)
