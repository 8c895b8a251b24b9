"""Gemma-3's layers, of its text models (arXiv:2503.19786, section 2; ``modeling_gemma3``)."""

from torch import Tensor

from ...core.models import LanguageModel
from .gemma2 import Gemma2Blocks
from .rotary import Rotary


class Gemma3Blocks(Gemma2Blocks):
    """Gemma-2's, with a norm of every head of queries and keys in the place of soft-caps, and rotary
    positions of one base in layers with a sliding window, of another in those that see everything.
    """

    def _make_rotaries(self, model: LanguageModel) -> list[Rotary]:
        from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

        frequencies = Gemma3RotaryEmbedding(self._config).to(model.device)
        return [Rotary(frequencies, layer_type=kind) for kind in self._config.layer_types]

    def _norm_heads(self, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        place = f"layers.{layer}.self_attn"
        return self._norm(query, f"{place}.q_norm"), self._norm(key, f"{place}.k_norm")
