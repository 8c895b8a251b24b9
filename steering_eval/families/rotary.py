"""Rotary positions (Su et al. 2021, arXiv:2104.09864, section 3.4), by Hugging Face's frequencies."""

import torch
from torch import Tensor, nn


class Rotary:
    """Turns queries and keys by their positions."""

    def __init__(self, frequencies: nn.Module, **options: str) -> None:
        """``frequencies``: a Hugging Face rotary embedding, scaling of long contexts included;
        ``options``: what it takes beside positions.
        """
        self._frequencies = frequencies
        self._options = options

    def __call__(self, query: Tensor, key: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both with their first rotary dimensions turned; the others, if any, stay."""
        cos, sin = self._frequencies(query, positions.to(query.device)[None], **self._options)
        return _turn(query, cos, sin), _turn(key, cos, sin)


def _turn(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned, rest = heads[..., : cos.shape[-1]], heads[..., cos.shape[-1] :]
    low, high = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-high, low], dim=-1) * sin
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned
