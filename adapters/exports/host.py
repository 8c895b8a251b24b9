"""The model that an edit is for: its layers, without its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import InputError
from ...core.hub import cache_first, refusal
from ...core.networks import quiet_libraries
from ..places import decoder_layers, text_config


@dataclass(frozen=True)
class Host:
    """A causal language model of Hugging Face on the meta device: modules and shapes, no values."""

    name: str
    """Hub id or local directory."""
    network: nn.Module

    @property
    def model_type(self) -> str:
        """Hugging Face's name of the architecture."""
        return str(text_config(self.network).model_type)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        return decoder_layers(self.network)[1]


def open_host(name: str, folder: Path) -> Host:
    """The model of a name, read from its configuration alone.

    Args:
        name: hub id, or a local directory.
        folder: that a relative directory starts from.

    Raises:
        InputError: it is not found, or not a causal language model of Hugging Face.

    """
    local = folder / name
    here = local.is_dir()
    if not here and name.startswith((".", "/")):
        raise InputError(
            f"model directory {local} does not exist; expected the model that the edit is for; name "
            "it by --setting"
        )
    source = str(local.resolve()) if here else name
    try:
        with quiet_libraries():
            network = cache_first(lambda: _structure(source), network=not here)
    except (OSError, ValueError, KeyError) as error:
        refused = None if here else refusal(error, "model", name)
        if refused is not None:
            raise InputError(f"{refused}; or name another by --setting") from None
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"model {source!r} cannot be read: {text}; expected the configuration of a causal "
            "language model of Hugging Face; name it by --setting"
        ) from error
    return Host(source, network)


def _structure(source: str) -> nn.Module:
    import transformers

    config: Any = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    with torch.device("meta"):
        network: nn.Module = transformers.AutoModelForCausalLM.from_config(
            config, trust_remote_code=False
        )
    return network.eval()
