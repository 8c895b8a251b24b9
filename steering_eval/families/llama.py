"""Llama's layers (arXiv:2302.13971, section 2.2; ``modeling_llama``), and those that differ from
them by biases or a sliding window only: Mistral (arXiv:2310.06825) and Qwen2 (arXiv:2407.10671).
"""

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from ...core.models import LanguageModel
from .rotary import Rotary
from .shapes import JoinedHeads, KeyHeads, QueryHeads, Stream

_FIRST_NORM = "layers.0.post_attention_layernorm.weight"


class LlamaBlocks:
    """RMSNorm, rotary positions, key and value heads shared by groups of queries, gated MLP."""

    parallel = False

    def __init__(self, model: LanguageModel) -> None:
        from transformers.activations import ACT2FN

        self._config = model.text_config
        self._d_head = int(
            getattr(self._config, "head_dim", None)
            or model.width // self._config.num_attention_heads
        )
        self._rotaries = self._make_rotaries(model)
        self._activation = ACT2FN[getattr(self._config, self._activation_key)]
        prefix = next(
            name.removesuffix(_FIRST_NORM)
            for name in model.parameters
            if name.endswith(_FIRST_NORM)
        )
        self._parameters = {
            name.removeprefix(prefix): tensor for name, tensor in model.parameters.items()
        }

    _activation_key = "hidden_act"

    def _make_rotaries(self, model: LanguageModel) -> list[Rotary]:
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        return [Rotary(LlamaRotaryEmbedding(self._config).to(model.device))] * model.n_layers

    def _norm(self, residual: Tensor, name: str) -> Tensor:
        """X / sqrt(mean x^2 + eps) times the weight, in float32 as Hugging Face computes it."""
        wide = residual.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._config.rms_norm_eps)
        return self._parameters[f"{name}.weight"] * wide.to(residual.dtype)

    def _affine(self, inputs: Tensor, name: str) -> Tensor:
        return functional.linear(
            inputs, self._parameters[f"{name}.weight"], self._parameters.get(f"{name}.bias")
        )

    def _split(self, joint: Tensor) -> Tensor:
        heads: Tensor = joint.unflatten(-1, (-1, self._d_head))
        return heads.transpose(1, 2)

    def project(
        self, layer: int, residual: Stream, positions: Int[Tensor, " _place"]
    ) -> tuple[QueryHeads, KeyHeads, KeyHeads]:
        """Three projections; there are fewer heads of keys and values than of queries."""
        query, key, value = self._heads(layer, self._entering(layer, residual))
        query, key = self._norm_heads(layer, query, key)
        return *self._rotaries[layer](query, key, positions), value

    def _entering(self, layer: int, residual: Tensor) -> Tensor:
        return self._norm(residual, f"layers.{layer}.input_layernorm")

    def _heads(self, layer: int, entering: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (
            self._split(self._affine(entering, f"layers.{layer}.self_attn.{name}_proj"))
            for name in ("q", "k", "v")
        )
        return query, key, value

    def _norm_heads(self, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query, key

    def attention(self, layer: int, attended: JoinedHeads) -> Stream:
        """The output projection."""
        return self._affine(attended, f"layers.{layer}.self_attn.o_proj")

    def _gated(self, layer: int, normed: Tensor) -> Tensor:
        gate, up = (
            self._affine(normed, f"layers.{layer}.mlp.{name}_proj") for name in ("gate", "up")
        )
        return self._affine(self._activation(gate) * up, f"layers.{layer}.mlp.down_proj")

    def mlp(self, layer: int, residual: Stream) -> Stream:
        """Norm, then the gated MLP."""
        return self._gated(layer, self._norm(residual, f"layers.{layer}.post_attention_layernorm"))

    def normalise(self, residual: Stream) -> Stream:
        """The model's ``norm``."""
        return self._norm(residual, "norm")

    def scale(self, layer: int) -> float:
        """1/sqrt(d_head)."""
        return float(self._d_head**-0.5)

    def window(self, layer: int) -> int | None:
        """The sliding window of the layers that have one."""
        kinds = getattr(self._config, "layer_types", None)
        if kinds is not None and kinds[layer] != "sliding_attention":
            return None
        window = getattr(self._config, "sliding_window", None)
        return None if window is None else int(window)

    def soft_cap(self) -> float | None:
        """No bound."""
        return None
