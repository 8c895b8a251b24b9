"""Hugging Face models as they are: loaded, and known by their tensors."""

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .hub import cache_first, refusal
from .settings import ModelSetting, Setting

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SAMPLED_ELEMENTS = 1 << 16


def load_network(setting: Setting, attention: str | None = "eager") -> tuple[Any, Any]:
    """Load the setting's model and its tokenizer from a local directory, the hub's cache, or the hub.

    Args:
        setting: names the model.
        attention: implementation of attention; None: what transformers takes by itself, but
            ``eager`` where the model needs it (see :func:`needs_eager`).

    Raises:
        InputError: the model is not found, its files are broken, or it is no causal language model.

    """
    import transformers
    from safetensors import SafetensorError

    wanted: ModelSetting = setting.model
    local = setting.locate(wanted.name)
    source = str(local) if local.is_dir() else wanted.name
    if not local.is_dir() and wanted.name.startswith((".", "/")):
        raise InputError(f"model directory {local} does not exist; correct [model] name")

    def load() -> tuple[Any, Any]:
        chosen = attention
        if chosen is None and needs_eager(transformers.AutoConfig.from_pretrained(source)):
            chosen = "eager"
        network = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=_DTYPES[wanted.dtype],
            attn_implementation=chosen,
            use_safetensors=True,
        )
        return network, transformers.AutoTokenizer.from_pretrained(source)

    try:
        with quiet_libraries():
            return cache_first(load, network=not local.is_dir())
    except SafetensorError as error:
        raise InputError(
            f"model {source}: its safetensors file is broken ({error}); copy or download it again"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        refused = None if local.is_dir() else refusal(error, "model", source)
        if refused is not None:
            raise InputError(f"{refused}; or correct [model] name") from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model {source!r} cannot be loaded: {reason}; expected a local directory or a hub id of "
            "a causal language model with safetensors weights; correct [model] name"
        ) from error


def needs_eager(config: Any) -> bool:
    """Tell whether a model caps the logits of its attention, as Gemma-2 does: implementations other
    than ``eager`` leave the cap out, or refuse it, depending on transformers' version.

    Args:
        config: of Hugging Face; of a model of several parts, the text part counts.

    """
    entries = config.get_text_config().to_dict()
    return any(
        bool(value) and "cap" in name and ("attn" in name or "attention" in name)
        for name, value in entries.items()
    )


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the progress bars and notices of the model libraries, not their errors."""
    import transformers
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    root_level = logging.getLogger().level
    transformers.logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        logging.getLogger().setLevel(root_level)


def parameters_dtype(parameters: dict[str, Tensor]) -> torch.dtype:
    """The number format of a model's parameters."""
    return next(iter(parameters.values())).dtype


def fingerprint_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, as 16 hexadecimal digits.

    Tensors of up to 65,536 elements count whole; of larger ones that many, evenly spaced, so that
    a model of 8 billion parameters is identified in seconds.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().reshape(-1)
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensor.dtype}".encode())
        step = max(1, tensor.numel() // _SAMPLED_ELEMENTS)
        digest.update(tensor[::step].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
