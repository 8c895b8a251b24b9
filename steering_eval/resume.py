"""The resumed forward pass: many steered final tokens against one frozen prefix.

Steering touches the final token only, so everything before it, and every layer below the hook, is
the same for all features. The clean pass keeps, for each context, what stands at the steered site
at the final token and the keys and values of the layers above without that token. F steered
features are then F *query positions*, all at the final token's place, each of which sees the prefix
and itself.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ..core.models import LanguageModel
from ..core.sites import Site, Stage
from .families import Blocks


@dataclass(frozen=True)
class Past:
    """Keys and values of the tokens before the final one, by layer."""

    keys: dict[int, Float[Tensor, "context head _seen d_head"]]
    """A layer with a sliding window may have dropped the earliest tokens."""
    values: dict[int, Float[Tensor, "context head _seen d_head"]]
    length: int
    """Tokens before the final one."""


@dataclass(frozen=True)
class FrozenPrefix:
    """The frozen part of some contexts."""

    forward: "ResumedForward"
    final: Float[Tensor, "context width"]
    """What stands at the steered site, clean, at the final token."""
    beside: Float[Tensor, "context d"] | None
    """The stream to which the rest of the steered layer adds, where the site is inside a layer."""
    past: Past
    """Of the layers whose attention comes after the site."""

    def of(self, contexts: slice) -> "FrozenPrefix":
        """The part of some consecutive contexts, sharing memory."""
        past = Past(
            {layer: key[contexts] for layer, key in self.past.keys.items()},
            {layer: value[contexts] for layer, value in self.past.values.items()},
            self.past.length,
        )
        beside = None if self.beside is None else self.beside[contexts]
        return FrozenPrefix(self.forward, self.final[contexts], beside, past)

    def resume(
        self, steered: Float[Tensor, "context query width"], tap: Site
    ) -> tuple[Float[Tensor, "context query d"], Float[Tensor, "context query tap"]]:
        """See :meth:`ResumedForward.resume`."""
        return self.forward.resume(steered, self, tap)


class ResumedForward:
    """A model cut at a site, run from there for the final token only."""

    def __init__(self, model: LanguageModel, blocks: Blocks, site: Site) -> None:
        self._model = model
        self._site = site
        self._blocks = blocks

    @torch.no_grad()
    def freeze(self, tokens: Int[Tensor, "context token"]) -> FrozenPrefix:
        """The clean pass of some contexts: below the site's layer by the bridge, from there by the
        family.
        """
        site, blocks = self._site, self._blocks
        (residual,) = self._model.read(tokens, [Site("", site.layer)])
        stream, final, beside = residual[:, :-1], residual[:, -1], None
        length = stream.shape[1]
        positions = torch.arange(length, device=residual.device)
        keys: dict[int, Tensor] = {}
        values: dict[int, Tensor] = {}
        for layer in range(site.layer, self._model.n_layers):
            query, key, value = blocks.project(layer, stream, positions)
            if (layer, Stage.ENTRY) >= site.order:
                first = _first_seen(blocks.window(layer), length)
                keys[layer] = key[:, :, first:].contiguous()
                values[layer] = value[:, :, first:].contiguous()
            else:
                final, beside = self._inside(
                    layer, final, Past({layer: key}, {layer: value}, length)
                )
            if layer + 1 < self._model.n_layers:
                attended = self._attend_prefix(layer, query, key, value)
                stream = self._through(layer, Stage.HEADS, _join_heads(attended), stream, {})
        return FrozenPrefix(self, final, beside, Past(keys, values, length))

    def _inside(
        self, layer: int, final: Float[Tensor, "context d"], past: Past
    ) -> tuple[Float[Tensor, "context width"], Float[Tensor, "context d"]]:
        """At the final token, what stands at a site inside a layer, and the stream beside it."""
        entry = final[:, None]
        tapped: dict[Stage, Tensor] = {}
        self._through(layer, Stage.HEADS, self._heads(layer, entry, past), entry, tapped)
        stage = self._site.stage
        after = stage == Stage.MLP and not self._blocks.parallel
        beside = tapped[Stage.MIDDLE] if after else entry
        if stage == Stage.MLP and self._blocks.parallel:
            beside = entry + tapped[Stage.ATTENTION]
        return tapped[stage][:, 0], beside[:, 0]

    @torch.no_grad()
    def resume(
        self, steered: Float[Tensor, "context query width"], prefix: FrozenPrefix, tap: Site
    ) -> tuple[Float[Tensor, "context query d"], Float[Tensor, "context query tap"]]:
        """Run queries from the site to the end.

        Returns the final norm's output and what stands at ``tap``.
        """
        inner: dict[Stage, Tensor] = {}
        at_tap = steered if self._site.order == tap.order else None
        stream = steered
        for layer in range(self._site.layer, self._model.n_layers):
            here = inner if layer == tap.layer else {}
            if layer == self._site.layer and self._site.stage != Stage.ENTRY:
                assert prefix.beside is not None
                beside = prefix.beside[:, None]
                stream = self._through(layer, self._site.stage, steered, beside, here)
            else:
                heads = self._heads(layer, stream, prefix.past)
                stream = self._through(layer, Stage.HEADS, heads, stream, here)
            if (layer + 1, Stage.ENTRY) == tap.order:
                at_tap = stream
        if at_tap is None:
            at_tap = inner[tap.stage].expand(-1, steered.shape[1], -1)
        return self._blocks.normalise(stream), at_tap

    def _through(
        self,
        layer: int,
        stage: Stage,
        value: Float[Tensor, "context query width"],
        beside: Float[Tensor, "context _queries d"],
        tapped: dict[Stage, Tensor],
    ) -> Float[Tensor, "context query d"]:
        """The stream leaving a layer, from what stands at one of its inner stages.

        ``beside`` is the stream entering the layer; for the MLP's output, all that it is added to.
        What is computed on the way goes into ``tapped``.
        """
        blocks = self._blocks
        tapped[stage] = value
        if stage == Stage.HEADS:
            value = tapped[Stage.ATTENTION] = blocks.attention(layer, value)
        if stage <= Stage.ATTENTION:
            middle = tapped[Stage.MIDDLE] = beside + value
        else:
            middle = value if stage == Stage.MIDDLE else beside
        if stage == Stage.MLP:
            return middle + value
        added = tapped[Stage.MLP] = blocks.mlp(layer, beside if blocks.parallel else middle)
        return middle + added

    def _heads(
        self, layer: int, stream: Float[Tensor, "context query d"], past: Past
    ) -> Float[Tensor, "context query heads"]:
        """The joined outputs of the heads for queries that see the prefix and themselves."""
        position = torch.tensor([past.length], device=stream.device)
        query, key, value = self._blocks.project(layer, stream, position)
        first = _first_seen(self._blocks.window(layer), past.length)
        past_keys, past_values = past.keys[layer], past.values[layer]
        start = first - (past.length - past_keys.shape[2])
        attended = _attend(
            query,
            key,
            value,
            past_keys[:, :, start:],
            past_values[:, :, start:],
            self._blocks.scale(layer),
            self._blocks.soft_cap(),
        )
        return _join_heads(attended)

    def _attend_prefix(
        self,
        layer: int,
        query: Float[Tensor, "context head position d_head"],
        key: Float[Tensor, "context key_head position d_head"],
        value: Float[Tensor, "context key_head position d_head"],
    ) -> Float[Tensor, "context head position d_head"]:
        """Causal attention within the prefix."""
        scale, cap, window = (
            self._blocks.scale(layer),
            self._blocks.soft_cap(),
            self._blocks.window(layer),
        )
        if cap is None and window is None:
            return functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scale, enable_gqa=True
            )
        shared = query.shape[1] // key.shape[1]
        key, value = (heads.repeat_interleave(shared, dim=1) for heads in (key, value))
        scores = _capped((query * scale) @ key.transpose(-1, -2), cap)
        places = torch.arange(query.shape[2], device=query.device)
        distance = places[:, None] - places
        hidden = (distance < 0) | (distance >= (window or len(places)))
        return scores.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ value


def _first_seen(window: int | None, length: int) -> int:
    """The first prefix position that the token after the prefix sees."""
    return 0 if window is None else max(0, length - (window - 1))


def _capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else cap * torch.tanh(scores / cap)


def _attend(
    query: Float[Tensor, "context head query d_head"],
    key: Float[Tensor, "context key_head query d_head"],
    value: Float[Tensor, "context key_head query d_head"],
    past_keys: Float[Tensor, "context key_head seen d_head"],
    past_values: Float[Tensor, "context key_head seen d_head"],
    scale: float,
    cap: float | None,
) -> Float[Tensor, "context head query d_head"]:
    """Attention of queries to the prefix and to themselves, query heads grouped by key head."""
    grouped = query.unflatten(1, (key.shape[1], -1)) * scale
    past = grouped.flatten(2, 3) @ past_keys.transpose(-1, -2)
    past = past.unflatten(2, grouped.shape[2:4])
    own = (grouped * key[:, :, None]).sum(dim=-1, keepdim=True)
    weights = _capped(torch.cat([past, own], dim=-1), cap).softmax(dim=-1)
    seen = weights[..., :-1].flatten(2, 3) @ past_values
    attended: Tensor = seen.unflatten(2, grouped.shape[2:4])
    attended = attended + weights[..., -1:] * value[:, :, None]
    return attended.flatten(1, 2)


def _join_heads(
    attended: Float[Tensor, "context head position d_head"],
) -> Float[Tensor, "context position heads"]:
    return attended.transpose(1, 2).flatten(2)
