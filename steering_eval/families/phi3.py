"""Phi-3's and Phi-4's layers (arXiv:2404.14219, section 2; ``modeling_phi3``)."""

from torch import Tensor

from ...core.models import LanguageModel
from .llama import LlamaBlocks
from .rotary import Rotary


class Phi3Blocks(LlamaBlocks):
    """Llama's, with query, key and value in one matrix, both halves of the gated MLP in another, and
    rotary positions in a part of each head.
    """

    def _make_rotaries(self, model: LanguageModel) -> list[Rotary]:
        from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

        return [Rotary(Phi3RotaryEmbedding(self._config).to(model.device))] * model.n_layers

    def _heads(self, layer: int, entering: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joint = self._affine(entering, f"layers.{layer}.self_attn.qkv_proj")
        queries = self._config.num_attention_heads * self._d_head
        keys = self._config.num_key_value_heads * self._d_head
        query, key, value = joint.split([queries, keys, keys], dim=-1)
        return self._split(query), self._split(key), self._split(value)

    def _gated(self, layer: int, normed: Tensor) -> Tensor:
        gate, up = self._affine(normed, f"layers.{layer}.mlp.gate_up_proj").chunk(2, dim=-1)
        return self._affine(self._activation(gate) * up, f"layers.{layer}.mlp.down_proj")


def phi3_blocks(model: LanguageModel) -> Phi3Blocks | None:
    """None where positions are scaled for long contexts: which factors apply hangs on the length of the
    whole sequence, and the fast pass sees its positions in parts.
    """
    scaling = model.text_config.rope_parameters["rope_type"]
    return Phi3Blocks(model) if scaling == "default" else None
