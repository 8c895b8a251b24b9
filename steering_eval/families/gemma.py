"""Gemma's layers (arXiv:2403.08295, section 2; ``modeling_gemma``)."""

import torch
from torch import Tensor

from .llama import LlamaBlocks


class GemmaBlocks(LlamaBlocks):
    """Llama's, with norms whose weights are what they differ from 1 by."""

    def _norm(self, residual: Tensor, name: str) -> Tensor:
        wide = residual.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._config.rms_norm_eps)
        return (wide * (1.0 + self._parameters[f"{name}.weight"].float())).to(residual.dtype)
