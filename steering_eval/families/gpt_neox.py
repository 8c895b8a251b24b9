"""GPT-NeoX's layers, Pythia's among them (arXiv:2204.06745, section 2; ``modeling_gpt_neox``)."""

from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from ...core.models import LanguageModel
from .rotary import Rotary
from .shapes import JoinedHeads, KeyHeads, QueryHeads, Stream


class GptNeoXBlocks:
    """Pre-norm blocks; attention and MLP side by side where the configuration says so; rotary
    positions on some of the dimensions.
    """

    def __init__(self, model: LanguageModel) -> None:
        from transformers.activations import ACT2FN
        from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

        config = model.config
        self.parallel = bool(config.use_parallel_residual)
        self._epsilon = config.layer_norm_eps
        self._heads = int(config.num_attention_heads)
        self._d_head = model.width // self._heads
        self._rotary = Rotary(GPTNeoXRotaryEmbedding(config).to(model.device))
        self._activation = ACT2FN[config.hidden_act]
        self._parameters = {
            name.removeprefix("gpt_neox."): tensor for name, tensor in model.parameters.items()
        }

    def _norm(self, residual: Tensor, name: str) -> Tensor:
        weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
        return functional.layer_norm(residual, weight.shape, weight, bias, self._epsilon)

    def _affine(self, inputs: Tensor, name: str) -> Tensor:
        return functional.linear(
            inputs, self._parameters[f"{name}.weight"], self._parameters.get(f"{name}.bias")
        )

    def project(
        self, layer: int, residual: Stream, positions: Int[Tensor, " _place"]
    ) -> tuple[QueryHeads, KeyHeads, KeyHeads]:
        """Query, key and value of each head lie together in the joint projection."""
        normed = self._norm(residual, f"layers.{layer}.input_layernorm")
        joint = self._affine(normed, f"layers.{layer}.attention.query_key_value")
        heads = joint.view(*joint.shape[:-1], self._heads, 3 * self._d_head).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        return *self._rotary(query, key, positions), value

    def attention(self, layer: int, attended: JoinedHeads) -> Stream:
        """The output projection."""
        return self._affine(attended, f"layers.{layer}.attention.dense")

    def mlp(self, layer: int, residual: Stream) -> Stream:
        """Norm, then two affine maps with an activation between."""
        normed = self._norm(residual, f"layers.{layer}.post_attention_layernorm")
        hidden = self._affine(normed, f"layers.{layer}.mlp.dense_h_to_4h")
        return self._affine(self._activation(hidden), f"layers.{layer}.mlp.dense_4h_to_h")

    def normalise(self, residual: Stream) -> Stream:
        """``final_layer_norm``."""
        return self._norm(residual, "final_layer_norm")

    def scale(self, layer: int) -> float:
        """1/sqrt(d_head)."""
        return float(self._d_head**-0.5)

    def window(self, layer: int) -> int | None:
        """Everything is seen."""
        return None

    def soft_cap(self) -> float | None:
        """No bound."""
        return None
