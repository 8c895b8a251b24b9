"""GPT-2's layers (Radford et al. 2019; Hugging Face ``modeling_gpt2``)."""

import torch
from torch import Tensor
from torch.nn import functional

from ...core.models import LanguageModel


class Gpt2Blocks:
    """Pre-norm blocks, attention then MLP in sequence, learned positions added at the input."""

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

    def project(self, layer: int, residual: Tensor, first_position: int) -> tuple[Tensor, ...]:
        """Query, key and value; positions were added to the stream at the input."""
        joint = self._affine(self._norm(residual, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn")
        heads = joint.view(*joint.shape[:-1], 3, self._heads, -1)
        return heads.permute(2, 0, 3, 1, 4).unbind(0)

    def combine(self, layer: int, residual: Tensor, attended: Tensor) -> Tensor:
        """Attention's output projection, then the MLP."""
        middle = residual + self._affine(attended, f"h.{layer}.attn.c_proj")
        hidden = self._affine(self._norm(middle, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        return middle + self._affine(self._activation(hidden), f"h.{layer}.mlp.c_proj")

    def normalise(self, residual: Tensor) -> Tensor:
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
