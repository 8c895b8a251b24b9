"""What can be added to the loss, so that an adapter stays small and to itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .components.component import Component
from .encoding import Frame, usable_length
from .layer import SaeAdapterLayer, edited
from .places import find_place
from .slices import Slice
from .taps import tap

_TOKENS_A_STEP = 512
_MOST_TOKENS = 1 << 16


class Watch:
    """Sees what components add to latents while it is open."""

    def __init__(self) -> None:
        self.edits: list[Tensor] = []

    def edit_size(self, mask: Tensor | None) -> Tensor:
        """Sum over allowed latents of abs(z' - z), mean over tokens, summed over places.

        Args:
            mask: 1 for tokens, 0 for padding, which does not count, ``[batch, token]``; None: there
                is no padding.

        Raises:
            ValueError: the mask is of another shape than the edits.

        """
        total: Tensor = torch.zeros(())
        for edit in self.edits:
            sizes = edit.abs().sum(dim=-1)
            if mask is not None and sizes.ndim:  # a constant edit has one size for all tokens
                if mask.shape != sizes.shape:
                    raise ValueError(
                        f"attention_mask of shape {tuple(mask.shape)} does not fit edits at "
                        f"{tuple(sizes.shape)} tokens"
                    )
                sizes = sizes[mask.to(sizes.device).bool()]
            total = total.to(sizes.device) + sizes.mean()
        return total


@contextmanager
def watching(model: nn.Module) -> Iterator[Watch]:
    """Watch every component of a model."""
    watch = Watch()

    def see(component: nn.Module, inputs: Any, edit: Tensor) -> None:
        if torch.is_grad_enabled():
            watch.edits.append(edit)

    handles = [
        module.register_forward_hook(see)
        for module in model.modules()
        if isinstance(module, Component)
    ]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


class Drift:
    """How far an edit moves the latents that it is not allowed to edit, on reference text.

    On tokens drawn from the reference, the mean over tokens of the sum over latents f outside the
    allowlist of abs(z_f(x') - z_f(x)): x is what stands at the site, x' the same edited, z the SAE's
    encoder. The allowed latents' decoder rows are not orthogonal to the others' encoder columns, so
    these move too.

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

    def __call__(self, layer: SaeAdapterLayer, place: str, adapter: str, step: int) -> Tensor:
        """The drift on the tokens of a step; the same step draws the same."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        count = min(_TOKENS_A_STEP, len(self.values))
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


@torch.no_grad()
def values_at(
    network: nn.Module,
    tokenizer: Any,
    hook: str,
    texts: Sequence[str],
    max_length: int,
    tick: Callable[[int], object] = lambda _: None,
    bos: bool = False,
) -> Float[Tensor, "token d"]:
    """What stands at a hook point at the tokens of texts, in a model without adapters; of the first
    65,536 tokens. ``bos``: each begins with BOS, once; no other special token is added.
    """
    place = find_place(network, hook)
    module = place.module_in(network.get_submodule(place.layer))
    seen: list[Tensor] = []

    def see(values: Tensor) -> None:
        seen.append(values.flatten(0, 1) * place.factor)

    handle = tap(module, place.at_input, see)
    length, frame = usable_length(network, max_length), Frame(tokenizer, bos)
    device, count = next(network.parameters()).device, 0
    try:
        for text in texts:
            (ids,) = frame.read([text], ends=False)
            network(torch.tensor([ids[:length]], device=device), use_cache=False)
            tick(1)
            count += len(seen[-1])
            if count >= _MOST_TOKENS:
                break
    finally:
        handle.remove()
    return torch.cat(seen)[:_MOST_TOKENS]
