"""The part of a frozen SAE that an adapter needs."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.errors import InputError

FIRES = 1e-6
"""Activation above which a latent counts as firing."""
_NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm")
_LAYER_NORM_EPSILON = 1e-5
"""SAELens' own."""


class Slice(nn.Module):
    """Encoder columns and decoder rows of some features, as SAELens computes them; no parameters.

    ReLU, JumpReLU and Gated latents are independent: only W_enc[:, k], b_enc[k], threshold[k] and
    W_dec[k] are kept. A TopK latent depends on all the others through the k-th largest
    pre-activation, so its whole encoder is kept, and evaluated without gradient. Nothing of it is
    saved with a model's parameters.

    Args:
        sae: a SAELens object of architecture ``standard``, ``jumprelu``, ``gated`` or ``topk``.
        features: indices, rising; None: all.
        centred: whether it reads its site minus the mean over the model dimension.

    Raises:
        InputError: a feature that the SAE does not have, or a normalisation that is not supported.

    """

    decoder: Float[Tensor, "feature d"]
    encoder: Float[Tensor, "d feature"]
    bias: Float[Tensor, " feature"]
    b_dec: Float[Tensor, " d"]
    threshold: Float[Tensor, " feature"]
    """JumpReLU alone has it."""
    gate_bias: Float[Tensor, " feature"]
    """Gated alone has it, and the next."""
    magnitude: Float[Tensor, " feature"]
    chosen: Int[Tensor, " feature"]
    """TopK alone has it, and the next two."""
    whole_encoder: Float[Tensor, "d all"]
    whole_bias: Float[Tensor, " all"]

    def __init__(self, sae: Any, features: Sequence[int] | None, centred: bool) -> None:
        super().__init__()
        config, device = sae.cfg, sae.W_dec.device
        n_features = int(config.d_sae)
        if features is not None and max(features) >= n_features:
            raise InputError(
                f"feature {max(features)} does not exist: the SAE has features 0 to {n_features - 1}; "
                "remove it, or use the SAE that the features are of"
            )
        if config.normalize_activations not in _NORMALISATIONS:
            raise InputError(
                f"the SAE normalises activations by {config.normalize_activations!r}; expected one of "
                f"{', '.join(_NORMALISATIONS)}; use another SAE"
            )
        chosen = torch.arange(n_features) if features is None else torch.as_tensor(features)
        chosen = chosen.to(device)
        self.architecture = str(config.architecture())
        self.centred = centred
        self.normalisation = str(config.normalize_activations)
        self.subtracts_b_dec = bool(config.apply_b_dec_to_input)
        scale = torch.ones(n_features, 1, dtype=sae.W_dec.dtype, device=device)
        if self.architecture == "topk" and config.rescale_acts_by_decoder_norm:
            scale = sae.W_dec.norm(dim=-1, keepdim=True)
        self._keep("b_dec", sae.b_dec)
        self._keep("decoder", sae.W_dec[chosen] / scale[chosen])
        self._keep("encoder", sae.W_enc[:, chosen] * scale[chosen].T)
        if self.architecture == "gated":
            self._keep("gate_bias", sae.b_gate[chosen])
            self._keep("magnitude", sae.r_mag[chosen].exp())
            self._keep("bias", sae.b_mag[chosen])
        else:
            self._keep("bias", sae.b_enc[chosen] * scale[chosen, 0])
        if self.architecture == "jumprelu":
            self._keep("threshold", sae.threshold[chosen])
        self.row_scale = (1 / scale[chosen, 0]).tolist()
        """``decoder`` in units of W_dec: 1, or 1 / |W_dec[k]| for TopK SAEs that rescale latents so."""
        if self.architecture == "topk":
            self.k = int(config.k)
            self._keep("chosen", chosen)
            self._keep("whole_encoder", sae.W_enc * scale.T)
            self._keep("whole_bias", sae.b_enc * scale[:, 0])

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor.detach().clone(), persistent=False)

    @property
    def n_features(self) -> int:
        return len(self.decoder)

    def read(
        self, values: Float[Tensor, "*any d"]
    ) -> tuple[Float[Tensor, "*any d"], Float[Tensor, "*any 1"] | None]:
        """What is encoded, and the length that a unit of the decoder then stands for (None: 1)."""
        values = values.to(self.decoder.dtype)
        if self.centred:
            values = values - values.mean(dim=-1, keepdim=True)
        unit = None
        if self.normalisation == "constant_norm_rescale":
            unit = values.norm(dim=-1, keepdim=True) / values.shape[-1] ** 0.5
            # At 0, where SAELens' own divides 0 by 0, what is read is 0, and nothing is moved.
            values = values / torch.where(unit > 0, unit, 1.0)
        elif self.normalisation == "layer_norm":
            values = values - values.mean(dim=-1, keepdim=True)
            unit = values.std(dim=-1, keepdim=True)
            values = values / (unit + _LAYER_NORM_EPSILON)
        return (values - self.b_dec if self.subtracts_b_dec else values), unit

    def encode(self, values: Float[Tensor, "*any d"]) -> Float[Tensor, "*any feature"]:
        """Activations of the features, from what ``read`` gives."""
        if self.architecture == "gated":
            before = values @ self.encoder
            fires = before + self.gate_bias > 0
            return torch.relu(before * self.magnitude + self.bias) * fires
        before = values @ self.encoder + self.bias
        active = torch.relu(before)
        if self.architecture == "jumprelu":
            return active * (before > self.threshold)
        if self.architecture == "topk":
            return active * self._among_largest(values)
        return active

    @torch.no_grad()
    def _among_largest(self, values: Float[Tensor, "*any d"]) -> Tensor:
        # Compared within one product: another would round a latent to the threshold's other side.
        before = values @ self.whole_encoder + self.whole_bias
        least = before.topk(self.k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
        return before[..., self.chosen] >= least
