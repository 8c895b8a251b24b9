"""The resumed forward pass: many steered final tokens against one frozen prefix.

Steering touches the final token only, so everything before it, and every layer below the hook, is
the same for all features. The clean pass keeps, for each context, the residual stream entering the
steered layer at the final token and the keys and values of the layers above without that token.
F steered features are then F *query positions*, all at the final token's place, each of which sees
the prefix and itself.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ..core.models import LanguageModel
from ..core.sites import Site
from .families import Blocks, blocks_of


@dataclass(frozen=True)
class Prefix:
    """The frozen part of some contexts."""

    final: Float[Tensor, "context d"]
    """Clean residual stream at the steered site, final token."""
    keys: list[Float[Tensor, "context head prefix d_head"]]
    """Per layer at or above the site, without the final token."""
    values: list[Float[Tensor, "context head prefix d_head"]]

    def of(self, contexts: slice) -> "Prefix":
        """The part of some consecutive contexts, sharing memory."""
        return Prefix(
            self.final[contexts],
            [key[contexts] for key in self.keys],
            [value[contexts] for value in self.values],
        )


class ResumedForward:
    """A model cut at a site, run from there for the final token only."""

    def __init__(self, model: LanguageModel, site: Site) -> None:
        self._model = model
        self._site = site
        self._blocks: Blocks = blocks_of(model)

    @torch.no_grad()
    def freeze(self, tokens: Int[Tensor, "context token"]) -> Prefix:
        """The clean pass of some contexts: below the site by the bridge, above it by the family."""
        (residual,) = self._model.residuals(tokens, [self._site])
        final, stream = residual[:, -1], residual[:, :-1]
        keys, values = [], []
        for layer in range(self._site.boundary, self._model.n_layers):
            query, key, value = self._blocks.project(layer, stream, 0)
            keys.append(key.contiguous())
            values.append(value.contiguous())
            if layer + 1 < self._model.n_layers:
                attended = functional.scaled_dot_product_attention(
                    query, key, value, is_causal=True, scale=self._blocks.scale(layer)
                )
                stream = self._blocks.combine(layer, stream, _join_heads(attended))
        return Prefix(final, keys, values)

    @torch.no_grad()
    def resume(
        self, residual: Float[Tensor, "context query d"], prefix: Prefix, tap: Site
    ) -> tuple[Float[Tensor, "context query d"], Float[Tensor, "context query d"]]:
        """Run queries from the site to the end.

        Returns the final norm's output and the residual stream at ``tap``.
        """
        position = prefix.keys[0].shape[2] if prefix.keys else 0
        tapped = residual
        for index, layer in enumerate(range(self._site.boundary, self._model.n_layers)):
            query, key, value = self._blocks.project(layer, residual, position)
            attended = _attend(
                query,
                key,
                value,
                prefix.keys[index],
                prefix.values[index],
                self._blocks.scale(layer),
            )
            residual = self._blocks.combine(layer, residual, _join_heads(attended))
            if layer + 1 == tap.boundary:
                tapped = residual
        return self._blocks.normalise(residual), tapped


def _attend(
    query: Tensor, key: Tensor, value: Tensor, past_keys: Tensor, past_values: Tensor, scale: float
) -> Tensor:
    past = (query * scale) @ past_keys.transpose(-1, -2)
    own = (query * key).sum(dim=-1, keepdim=True) * scale
    weights = torch.cat([past, own], dim=-1).softmax(dim=-1)
    return weights[..., :-1] @ past_values + weights[..., -1:] * value


def _join_heads(attended: Float[Tensor, "context head position d_head"]) -> Tensor:
    return attended.transpose(1, 2).flatten(2)
