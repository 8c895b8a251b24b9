"""Gemma-2's layers (arXiv:2408.00118, section 2; ``modeling_gemma2``)."""

from .gemma import GemmaBlocks
from .shapes import JoinedHeads, Stream


class Gemma2Blocks(GemmaBlocks):
    """Gemma's, with norms behind attention and MLP too, soft-capped scores, and a sliding window in
    every other layer.
    """

    _activation_key = "hidden_activation"

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
