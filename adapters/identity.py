"""Which base model an adapter was made for, by its weights."""

from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.networks import fingerprint_contents

_WRAPPED = ".base_layer."


def base_fingerprint(model: nn.Module, prefix: str) -> str | None:
    """A fingerprint of a base model's weights that is the same in float32 and in bfloat16.

    Args:
        model: a Hugging Face model, also with our adapters.
        prefix: of the names of adapters' parameters, which do not count.

    Returns:
        None where it cannot be told: some weights are elsewhere (the meta device), are quantised, or
        in float16, which rounds them otherwise.

    """
    weights: dict[str, Tensor] = {
        name.replace(_WRAPPED, "."): parameter
        for name, parameter in model.named_parameters()
        if prefix not in name
    }
    for weight in weights.values():
        if weight.device.type == "meta" or weight.dtype not in _COMPARED:
            return None
    return fingerprint_contents(weights)


_COMPARED = (torch.float64, torch.float32, torch.bfloat16)


def check_base(config: Any, found: str | None) -> None:
    """Refuse another base model than an adapter was made for, where both are known.

    Raises:
        InputError: it is another.

    """
    known = config.base_fingerprint
    if None in (known, found) or known == found:
        return
    name = config.base_model_name_or_path
    raise InputError(
        f"the model has weights of fingerprint {found}, the adapter is made for {known}"
        + f" ({name})" * bool(name)
        + "; expected the same; load that model, or set base_fingerprint of the configuration "
        "to None where another is meant"
    )
