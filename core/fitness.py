"""Which dictionaries are fit for use."""

from pathlib import Path
from typing import Any

import torch

from .errors import InputError
from .networks import fingerprint_tensors
from .releases import UNFOLDED
from .tables import read_json

TRANSCODERS = {
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
}
"""Architectures whose features read one site and write another."""
INDEPENDENT = {"standard", "jumprelu", "gated"} | TRANSCODERS
SUPPORTED = INDEPENDENT | {"topk"}


def check_reconstructing(sae: Any, label: str) -> str:
    """The fingerprint of a SAELens object that is fit for use and writes where it reads.

    Raises:
        InputError: it is not fit (see :func:`check_sae`), or is a transcoder.

    """
    if str(sae.cfg.architecture()) in TRANSCODERS:
        raise InputError(
            f"{label} is a transcoder: its features read one place and write another; expected an SAE, "
            "which reconstructs what it reads; use one"
        )
    return check_sae(sae, label)


def check_sae(sae: Any, label: str) -> str:
    """The fingerprint of a SAELens object that is fit for use.

    Raises:
        InputError: it is not: see :func:`open_sae`.

    """
    architecture = str(sae.cfg.architecture())
    if architecture not in SUPPORTED:
        raise InputError(
            f"SAE {label} has architecture {architecture!r}; supported are "
            f"{', '.join(sorted(SUPPORTED))}; use one of these"
        )
    k = getattr(sae.cfg, "k", None)
    if architecture == "topk" and k is not None and not 0 < k <= sae.cfg.d_sae:
        raise InputError(
            f"SAE {label}: k = {k} does not lie between 1 and its {sae.cfg.d_sae} features; mend its "
            "cfg.json"
        )
    mode = sae.cfg.normalize_activations
    if mode in UNFOLDED:
        raise InputError(
            f"SAE {label} was trained on scaled activations (normalize_activations = {mode!r}), and the "
            "scale is neither folded into its weights nor known; expected weights for activations as "
            "they are; name its SAELens release, or fold the scale in "
            "(sae.fold_activation_norm_scaling_factor) and save it"
        )
    tensors = dict(sae.state_dict())
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"SAE {label}: tensor {name} holds NaN or infinity; download it again")
    sae.eval().requires_grad_(False)
    return fingerprint_tensors(tensors)


def check_architecture(folder: Path) -> None:
    """Refuse an SAE directory by its ``cfg.json``, before its weights are read.

    Raises:
        InputError: its architecture is not supported.

    """
    found = read_json(folder / "cfg.json").get("architecture", "standard")
    if found in SUPPORTED:
        return
    remedy = "use one of these"
    if "batchtopk" in str(found):
        remedy = "save it with SAELens' save_inference_model, which makes a JumpReLU SAE of it"
    raise InputError(
        f"SAE directory {folder} has architecture {found!r} in its cfg.json; supported are "
        f"{', '.join(sorted(SUPPORTED))}; {remedy}"
    )
