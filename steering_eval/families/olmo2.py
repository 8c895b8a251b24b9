"""OLMo-2's layers (arXiv:2501.00656, section 2.1; ``modeling_olmo2``)."""

import torch
from torch import Tensor

from .llama import LlamaBlocks
from .shapes import JoinedHeads, Stream


class Olmo2Blocks(LlamaBlocks):
    """Llama's, with norms behind attention and MLP in place of those before them, and one norm of all
    heads of queries together, one of all heads of keys.
    """

    def _norm(self, residual: Tensor, name: str) -> Tensor:
        wide = residual.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._config.rms_norm_eps)
        return (self._parameters[f"{name}.weight"] * wide).to(residual.dtype)

    def _entering(self, layer: int, residual: Tensor) -> Tensor:
        return residual

    def _norm_heads(self, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        place = f"layers.{layer}.self_attn"
        return self._norm_joined(query, f"{place}.q_norm"), self._norm_joined(
            key, f"{place}.k_norm"
        )

    def _norm_joined(self, heads: Tensor, name: str) -> Tensor:
        return self._split(self._norm(heads.transpose(1, 2).flatten(-2), name))

    def attention(self, layer: int, attended: JoinedHeads) -> Stream:
        """The output projection and the norm behind it."""
        added = super().attention(layer, attended)
        return self._norm(added, f"layers.{layer}.post_attention_layernorm")

    def mlp(self, layer: int, residual: Stream) -> Stream:
        """The gated MLP and the norm behind it."""
        return self._norm(
            self._gated(layer, residual), f"layers.{layer}.post_feedforward_layernorm"
        )
