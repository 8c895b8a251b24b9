"""Gemma-2's layers (arXiv:2408.00118, section 2; ``modeling_gemma2``)."""

import torch
from torch import Tensor

from .llama import LlamaBlocks
from .shapes import JoinedHeads, Stream


class Gemma2Blocks(LlamaBlocks):
    """Llama's, with norms behind attention and MLP too, soft-capped scores, and a sliding window in
    every other layer.
    """

    _activation_key = "hidden_activation"

    def _norm(self, residual: Tensor, name: str) -> Tensor:
        wide = residual.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._config.rms_norm_eps)
        return (wide * (1.0 + self._parameters[f"{name}.weight"].float())).to(residual.dtype)

    def attention(self, layer: int, attended: JoinedHeads) -> Stream:
        """The output projection and the norm behind it."""
        return self._norm(
            super().attention(layer, attended), f"layers.{layer}.post_attention_layernorm"
        )

    def mlp(self, layer: int, residual: Stream) -> Stream:
        """The gated MLP between two norms."""
        normed = self._norm(residual, f"layers.{layer}.pre_feedforward_layernorm")
        return self._norm(self._gated(layer, normed), f"layers.{layer}.post_feedforward_layernorm")

    def scale(self, layer: int) -> float:
        """1/sqrt(query_pre_attn_scalar)."""
        return float(self._config.query_pre_attn_scalar**-0.5)

    def soft_cap(self) -> float | None:
        """``attn_logit_softcapping``."""
        cap = self._config.attn_logit_softcapping
        return None if cap is None else float(cap)
