"""GPT-2's layers (Radford et al. 2019; Hugging Face ``modeling_gpt2``)."""

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from ...core.models import LanguageModel
from .shapes import JoinedHeads, KeyHeads, QueryHeads, Stream


class Gpt2Blocks:
    """Pre-norm blocks, attention then MLP in sequence, learned positions added at the input."""

    parallel = False

    def __init__(self, model: LanguageModel) -> None:
        from transformers.activations import ACT2FN

        self._config = model.config
        self._heads = int(model.config.n_head)
        self._parameters = {
            name.removeprefix("transformer."): tensor for name, tensor in model.parameters.items()
        }
        name = model.config.activation_function
        # Hugging Face writes gelu_new out in elementary operations; torch has it in one.
        self._activation = ACT2FN["gelu_pytorch_tanh" if name == "gelu_new" else name]

    def _norm(self, residual: Tensor, name: str) -> Tensor:
        weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
        return functional.layer_norm(
            residual, weight.shape, weight, bias, self._config.layer_norm_epsilon
        )

    def _affine(self, inputs: Tensor, name: str) -> Tensor:
        weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
        flat = torch.addmm(bias, inputs.reshape(-1, inputs.shape[-1]), weight)
        return flat.view(*inputs.shape[:-1], -1)

    def project(
        self, layer: int, residual: Stream, positions: Int[Tensor, " _place"]
    ) -> tuple[QueryHeads, KeyHeads, KeyHeads]:
        """Query, key and value; positions were added to the stream at the input."""
        joint = self._affine(self._norm(residual, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn")
        heads = joint.view(*joint.shape[:-1], 3, self._heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def attention(self, layer: int, attended: JoinedHeads) -> Stream:
        """The output projection."""
        return self._affine(attended, f"h.{layer}.attn.c_proj")

    def mlp(self, layer: int, residual: Stream) -> Stream:
        """``ln_2``, then two affine maps with an activation between."""
        hidden = self._affine(self._norm(residual, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        return self._affine(self._activation(hidden), f"h.{layer}.mlp.c_proj")

    def normalise(self, residual: Stream) -> Stream:
        """``ln_f``."""
        return self._norm(residual, "ln_f")

    def scale(self, layer: int) -> float:
        """1/sqrt(d_head), and 1/(layer + 1) more where the configuration says so."""
        scale = 1.0
        if self._config.scale_attn_weights:
            scale = (self._config.n_embd / self._heads) ** -0.5
        if self._config.scale_attn_by_inverse_layer_idx:
            scale /= layer + 1
        return scale

    def window(self, layer: int) -> int | None:
        """Everything is seen."""
        return None

    def soft_cap(self) -> float | None:
        """No bound."""
        return None
