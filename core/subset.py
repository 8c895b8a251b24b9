"""SAEs of some of another's features."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import InputError
from .fitness import INDEPENDENT

_FEATURE_AXIS = {
    "W_enc": 1,
    "W_dec": 0,
    "b_enc": 0,
    "threshold": 0,
    "b_gate": 0,
    "b_mag": 0,
    "r_mag": 0,
}
"""Tensors that have an axis of features, and which it is; of the others every subset keeps the whole."""


def subset(sae: Any, features: NDArray[np.int64]) -> Any:
    """A SAELens object of some features, which encodes them exactly as the whole does.

    Raises:
        ValueError: the latents depend on each other (TopK).

    """
    architecture = str(sae.cfg.architecture())
    if architecture not in INDEPENDENT:
        raise ValueError(f"latents of a {architecture} SAE cannot be computed alone")
    index = torch.as_tensor(features, device=sae.W_dec.device)
    changes = {"d_sae": len(index), "reshape_activations": "none"}
    config = type(sae.cfg).from_dict(sae.cfg.to_dict() | changes)
    config.metadata = type(sae.cfg.metadata)()
    part = type(sae)(config)
    part.load_state_dict(
        {
            name: tensor.index_select(_FEATURE_AXIS[name], index)
            if name in _FEATURE_AXIS
            else tensor
            for name, tensor in sae.state_dict().items()
        }
    )
    part.to(device=str(index.device), dtype=sae.dtype)
    return part.eval().requires_grad_(False)


def first_features(sae: Any, count: int, label: str) -> Any:
    """A level of a Matryoshka SAE: its first features, which were trained to reconstruct alone (B.
    Bussmann et al., "Learning Multi-Level Features with Matryoshka Sparse Autoencoders",
    arXiv:2503.17547, section 3).

    Raises:
        InputError: it has fewer, or latents that depend on each other.

    """
    if count > sae.cfg.d_sae:
        raise InputError(
            f"`first` is {count}, SAE {label} has {sae.cfg.d_sae} features; expected at most as many; "
            "correct it"
        )
    architecture = str(sae.cfg.architecture())
    if architecture not in INDEPENDENT:
        raise InputError(
            f"`first` is {count}, and in a {architecture} SAE ({label}) which features fire depends on "
            "all; expected JumpReLU, ReLU or gated; leave it out"
        )
    level = subset(sae, np.arange(count))
    level.cfg.metadata = sae.cfg.metadata
    level.cfg.reshape_activations = sae.cfg.reshape_activations
    return level
