"""Text on which an adapter should change little, and how much it does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import Target
from .encoding import IGNORED, Frame, usable_length
from .layer import SaeAdapterLayer, edited
from .model import load_target
from .padding import Row, batches, padded, plain_row
from .places import find_place
from .slices import Slice
from .taps import tap

if TYPE_CHECKING:
    from .budget import Budgeted

_TOKENS_A_STEP = 512
_TOKENS_MEASURED = 4096
_MOST_TOKENS = 1 << 16
_MOST_MEASURED = 1 << 15


class Drift:
    """How far an edit moves the latents that it is not allowed to edit, on reference text.

    The mean over tokens of the sum over latents f outside the allowlist of abs(z_f(x') - z_f(x)): x is
    what stands at the site, x' the same edited, z the SAE's encoder. The allowed latents' decoder rows
    are not orthogonal to the others' encoder columns, so these move too.

    Args:
        values: what stands at the site in the unedited model, ``[token, d]``.
        whole: the SAE with all features.
        allowed: indices of the allowed ones; None: all, so that nothing can drift.
        seed: of the tokens drawn at each step.

    """

    def __init__(
        self, values: Float[Tensor, "token d"], whole: Slice, allowed: list[int] | None, seed: int
    ) -> None:
        self.values, self.whole = values, whole.to(values.device)
        self._others = torch.ones(whole.n_features, dtype=torch.bool, device=values.device)
        self._others[slice(None) if allowed is None else allowed] = False
        self._seed = seed

    def __call__(
        self, layer: SaeAdapterLayer, place: str, adapter: str, step: int | None = None
    ) -> Tensor:
        """The drift on 512 tokens drawn for a step, the same for the same step; without a step on
        4,096 that are the same for all.
        """
        most = _TOKENS_MEASURED if step is None else _TOKENS_A_STEP
        number = 0 if step is None else step + 1
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        count = min(most, len(self.values))
        drawn = torch.randperm(len(self.values), generator=generator)[:count]
        x = self.values[drawn.to(self.values.device)]
        part, component = (
            getattr(layer, f"{kind}_{place}")[adapter] for kind in ("slice", "cleansteer")
        )
        before, after = (self._encode(values) for values in (x, edited(x, part, component)))
        return (after - before)[:, self._others].abs().sum(dim=-1).mean()

    def _encode(self, values: Tensor) -> Tensor:
        read, _ = self.whole.read(values)
        return self.whole.encode(read)


@dataclass(frozen=True)
class Reference:
    """What is measured of an adapter on reference text."""

    rows: Sequence[list[int]]
    """Texts as tokens."""
    drift: Mapping[str, Drift] | None = None
    """By hook point, what is moved by the edit there; None: the adapter edits no latents."""
    budgeted: "Budgeted | None" = None
    """What holds KL to a budget; ``rows`` are those that the edit is scaled by then."""

    def divergence(self, model: Any) -> float:
        """KL(model without || with its adapter) of the next token, in nats, mean over tokens; of the
        first 4,096 or so.

        Args:
            model: a PEFT model; it is evaluated without dropout.

        """
        return divergence(model, self.rows, _TOKENS_MEASURED)[0]


@torch.no_grad()
def divergence(
    model: Any, rows: Sequence[Sequence[int]], most: int = _MOST_MEASURED
) -> tuple[float, int]:
    """KL(model without || with its adapter) of the next token, in nats, mean over tokens, and over how
    many.

    Args:
        model: a PEFT model; it is evaluated without dropout.
        rows: texts as tokens.
        most: after so many tokens no further text is begun.

    """
    total, count = 0.0, 0
    with _evaluated(model):
        for batch in batches([plain_row(row) for row in rows]):
            summed, n_tokens = _summed(model, batch)
            total, count = total + float(summed), count + n_tokens
            if count >= most:
                break
    return total / max(count, 1), count


def step_divergence(model: Any, rows: Sequence[Row]) -> Tensor:
    """The same of a few texts together, with a gradient."""
    with _evaluated(model):
        summed, count = _summed(model, rows)
    return summed / max(count, 1)


def _summed(model: Any, rows: Sequence[Row]) -> tuple[Tensor, int]:
    """Summed over tokens, and over how many."""
    given = padded(rows, next(model.parameters()).device)
    with torch.no_grad(), model.disable_adapter():
        base = _log_probabilities(model, given)
    ours = _log_probabilities(model, given)
    counted = given["labels"][:, 1:] != IGNORED
    each = (base.exp() * (base - ours)).sum(dim=-1)
    return (each * counted).sum(), int(counted.sum())


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _log_probabilities(model: Any, given: Mapping[str, Tensor]) -> Float[Tensor, "row token vocab"]:
    # Labels, for adapters that edit the tokens that have one.
    out = model(**given, use_cache=False)
    return torch.log_softmax(out.logits[:, :-1].float(), dim=-1)


def reference_rows(
    network: nn.Module, tokenizer: Any, texts: Sequence[str], max_length: int, bos: bool = False
) -> list[list[int]]:
    """Texts as tokens, cut to what can be used of each; the first 65,536 tokens or so.

    ``bos``: each begins with BOS, once; no other special token is added.
    """
    length, frame = usable_length(network, max_length), Frame(tokenizer, bos)
    rows: list[list[int]] = []
    total = 0
    for text in texts:
        (ids,) = frame.read([text], ends=False)
        if ids:
            rows.append(ids[:length])
        total += len(ids[:length])
        if total >= _MOST_TOKENS:
            break
    return rows


def drifts(
    network: nn.Module,
    targets: Sequence[Target],
    rows: Sequence[Sequence[int]],
    seed: int,
    tick: Callable[[int], object] = lambda _: None,
    skipped: frozenset[int] = frozenset(),
) -> dict[str, Drift]:
    """What measures the drift at each target of an adapter, by hook point; see :func:`values_at`."""
    found = {}
    for target in targets:
        whole = load_target(target.with_features(None), network).part
        values = values_at(network, target.hook, rows, tick, skipped)
        found[target.hook] = Drift(values, whole, target.features, seed)
    return found


@torch.no_grad()
def values_at(
    network: nn.Module,
    hook: str,
    rows: Sequence[Sequence[int]],
    tick: Callable[[int], object] = lambda _: None,
    skipped: frozenset[int] = frozenset(),
) -> Float[Tensor, "token d"]:
    """What stands at a hook point at the tokens of texts, in a model without adapters.

    Args:
        network: the model.
        hook: TransformerLens' name of the hook point.
        rows: texts as tokens.
        tick: called with 1 after each.
        skipped: tokens that are left out where a text begins with them.

    """
    place = find_place(network, hook)
    module = place.module_in(network.get_submodule(place.layer))
    seen: list[Tensor] = []

    def see(values: Tensor) -> None:
        seen.append(values.flatten(0, 1) * place.factor)

    handle = tap(module, place.at_input, see)
    device = next(network.parameters()).device
    try:
        for row in rows:
            network(torch.tensor([list(row)], device=device), use_cache=False)
            if row[0] in skipped:
                seen[-1] = seen[-1][1:]
            tick(1)
    finally:
        handle.remove()
    return torch.cat(seen)
