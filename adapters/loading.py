"""Opening saved adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from peft import PeftModel
from torch import nn

from ..core.checks import check_type
from ..core.errors import InputError
from .config import SaeAdapterConfig, by_hook
from .opening import provided

Sae: TypeAlias = Any
"""Directory of an SAE in SAELens' format, or a SAELens object."""


def load(
    model: nn.Module,
    path: str | Path,
    *,
    sae: Sae | Mapping[str, Sae] | None = None,
    adapter_name: str = "default",
    is_trainable: bool = False,
) -> PeftModel:
    """Open a saved adapter over a model, as ``peft.PeftModel.from_pretrained`` does.

    Args:
        model: a Hugging Face causal language model, or one that has adapters already.
        path: the adapter's directory, or its repository on the Hugging Face Hub.
        sae: the SAE, where it lies elsewhere now: its directory, or a SAELens object; of an adapter
            with several targets, a dictionary of them by hook point. It has to be the one that the
            adapter was made with.
        adapter_name: what the adapter is called.
        is_trainable: whether it will be trained on.

    Returns:
        The model with the adapter; one that has adapters already is changed.

    Raises:
        InputError: no such adapter, or another SAE or base model than it was made for.
        TypeError: ``model`` is no model.

    """
    check_type("model", model, nn.Module, "a Hugging Face model")
    config = read_config(path)
    given = by_hook(config, sae)
    files = {hook: each for hook, each in given.items() if isinstance(each, str | Path)}
    objects = {hook: each for hook, each in given.items() if hook not in files}
    if files:
        config = SaeAdapterConfig.from_pretrained(str(path), sae=files)
    config.inference_mode = not is_trainable
    with provided(objects):
        if not isinstance(model, PeftModel):
            return PeftModel.from_pretrained(
                model, str(path), adapter_name, is_trainable=is_trainable, config=config
            )
        model.add_adapter(adapter_name, config)
        model.load_adapter(str(path), adapter_name, is_trainable=is_trainable)
    return model


def read_config(path: str | Path) -> SaeAdapterConfig:
    """The configuration of a saved adapter on SAE latents.

    Raises:
        InputError: there is none, or it is another kind of adapter's.

    """
    try:
        config = SaeAdapterConfig.from_pretrained(str(path))
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be opened: {error}; expected the directory of an adapter, or its repository; "
            "correct it"
        ) from None
    if not isinstance(config, SaeAdapterConfig):
        raise InputError(
            f"{path} holds an adapter of type {config.peft_type.value}; expected one on SAE latents; "
            "open it with PEFT"
        )
    return config
