"""Qwen3's layers (arXiv:2505.09388, section 2; ``modeling_qwen3``)."""

from torch import Tensor

from .llama import LlamaBlocks


class Qwen3Blocks(LlamaBlocks):
    """Llama's, with a norm of every head of queries and keys."""

    def _norm_heads(self, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        place = f"layers.{layer}.self_attn"
        return self._norm(query, f"{place}.q_norm"), self._norm(key, f"{place}.k_norm")
