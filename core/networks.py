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
from .gguf import convert, model_file
from .hub import cache_first, refusal
from .settings import ModelSetting, Setting
from .weights import check_report

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SAMPLED_ELEMENTS = 1 << 16
_CAUSAL_TOKENS = 8
_CAUSAL_ROUNDING = {torch.bfloat16: 0.02, torch.float16: 0.005}
"""Largest change of earlier logits, relative to the largest logit, that rounding explains (1e-4 in
the wider formats); where tokens are dispatched to experts, products have other shapes."""


def model_source(setting: Setting) -> tuple[str, bool]:
    """What transformers is to load a setting's model from, and whether that is a local directory: a
    GGUF file is converted first.

    Raises:
        InputError: a directory, file or package that the setting names is not there.

    """
    wanted: ModelSetting = setting.model
    file = model_file(wanted, setting.folder)
    if file is not None:
        return str(convert(file, wanted.dtype)), True
    local = setting.locate(wanted.name)
    if local.is_dir():
        return str(local), True
    if wanted.name.startswith((".", "/")):
        raise InputError(f"model directory {local} does not exist; correct [model] name")
    return wanted.name, False


def load_network(setting: Setting, attention: str | None = "eager") -> tuple[Any, Any]:
    """Load the setting's model and its tokenizer from a local directory, a GGUF file (converted once),
    the hub's cache, or the hub.

    Args:
        setting: names the model.
        attention: implementation of attention; None: what transformers takes by itself, but
            ``eager`` where the model needs it (see :func:`needs_eager`).

    Raises:
        InputError: the model is not found, is quantised or an adapter, its files are broken, hold
            other tensors than it is made of (see :func:`core.weights.check_report`), or it is no
            causal language model.

    """
    source, here = model_source(setting)
    return load_source(source, here, setting.model.dtype, attention)


def load_source(
    source: str, here: bool, dtype: str = "float32", attention: str | None = "eager"
) -> tuple[Any, Any]:
    """The same by what transformers is to load it from.

    Args:
        source: a local directory, or a hub id.
        here: whether it is the former.
        dtype: ``float32`` or ``bfloat16``.
        attention: as above.

    Raises:
        InputError: as above.

    """
    import transformers
    from safetensors import SafetensorError
    from transformers.utils import find_adapter_config_file

    label = f"model {source!r}"

    def load_config() -> Any:
        if find_adapter_config_file(source) is not None:
            return None
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)

    def load() -> tuple[Any, dict[str, Any], Any]:
        chosen = attention
        if chosen is None and needs_eager(config):
            chosen = "eager"
        network, report = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=_DTYPES[dtype],
            attn_implementation=chosen,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # the report tells of them
            output_loading_info=True,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        return network, report, tokenizer

    try:
        with quiet_libraries():
            config = cache_first(load_config, network=not here)
            if config is None:
                raise InputError(
                    f"{label} is a PEFT adapter (adapter_config.json); expected a whole model; name "
                    "its base model, or merge it: AutoPeftModelForCausalLM.from_pretrained(...)"
                    ".merge_and_unload().save_pretrained(...), and the tokenizer's"
                )
            check_unquantised(config, label)
            network, report, tokenizer = cache_first(load, network=not here)
    except InputError:
        raise
    except SafetensorError as error:
        raise InputError(
            f"{label}: its safetensors file is broken ({error}); copy or download it again"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        refused = None if here else refusal(error, "model", source)
        if refused is not None:
            raise InputError(f"{refused}; or correct [model] name") from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{label} cannot be loaded: {reason}; expected a local directory or a hub id of "
            "a causal language model with safetensors weights; correct [model] name"
        ) from error
    check_report(report, label)
    return network, tokenizer


def check_unquantised(config: Any, label: str) -> None:
    """Refuse a model whose weights are stored in a few bits (GPTQ, AWQ, bitsandbytes, FP8, ...).

    Args:
        config: of Hugging Face.
        label: what messages call the model.

    Raises:
        InputError: they are.

    """
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        entries = quantised if isinstance(quantised, dict) else quantised.to_dict()
        method = str(getattr(entries.get("quant_method"), "value", entries.get("quant_method")))
        raise InputError(
            f"{label} is quantised ({method}); expected weights in float32 or bfloat16; use the "
            "model that it was made from"
        )


@torch.no_grad()
def check_causal(network: Any) -> None:
    """Refuse a model in which a token changes logits before it, as in encoders (BERT).

    Eight tokens are read, and once more with the last four changed; the model is in evaluation mode.

    Raises:
        InputError: logits of the first four differ by more than rounding, or are not finite.

    """
    half = _CAUSAL_TOKENS // 2
    tokens = torch.arange(_CAUSAL_TOKENS, device=next(network.parameters()).device)
    both = torch.stack([tokens, torch.cat([tokens[:half], tokens[:half]])])
    logits = network(both, use_cache=False).logits
    kind = f"model of type {network.config.model_type!r}"
    if not torch.isfinite(logits).all():
        raise InputError(
            f"{kind} gives logits that are NaN or infinite; expected numbers; copy or download its "
            "weights again, or use dtype = 'float32'"
        )
    first, second = logits[:, :half].float()
    difference = float((first - second).abs().max() / logits.abs().max())
    if difference > _CAUSAL_ROUNDING.get(logits.dtype, 1e-4):
        raise InputError(
            f"{kind} lets a token change what is predicted before it (by {difference:.2g} of the "
            "largest logit), as encoders do; expected a causal language model; use one"
        )


def complete_biases(network: Any) -> None:
    """Give the joint projections of a GPT-NeoX model without biases (``attention_bias = False``)
    a bias of 0: TransformerLens' bridge takes them for granted.
    """
    if network.config.model_type != "gpt_neox":
        return
    for layer in network.gpt_neox.layers:
        joint = layer.attention.query_key_value
        if joint.bias is None:
            zeros = torch.zeros(joint.out_features).to(joint.weight)
            joint.bias = torch.nn.Parameter(zeros, requires_grad=False)


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


@contextlib.contextmanager
def no_installs() -> Iterator[None]:
    """Let a library install nothing: TransformerLens' bridge runs ``pip install torchvision`` for models
    that see pictures, which exchanges the torch that is there, and goes on without where that fails.
    """
    import subprocess

    def refuse(*command: object, **options: object) -> None:
        raise OSError(f"{command} is not run: libraries install nothing here")

    library: Any = subprocess
    before = library.check_call
    library.check_call = refuse
    try:
        yield
    finally:
        library.check_call = before


def parameters_dtype(parameters: dict[str, Tensor]) -> torch.dtype:
    """The number format of a model's parameters."""
    return next(iter(parameters.values())).dtype


def fingerprint_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes, number formats and values, as 16 hexadecimal digits.

    Tensors of up to 65,536 elements count whole; of larger ones that many, evenly spaced, so that
    a model of 8 billion parameters is identified in seconds.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(_sampled(tensors[name]).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint_contents(tensors: dict[str, Tensor]) -> str:
    """The same of the values rounded to bfloat16, whatever format they are in: weights have it in
    float32 and in bfloat16 alike.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(_sampled(tensors[name]).bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _sampled(tensor: Tensor) -> Tensor:
    step = max(1, tensor.numel() // _SAMPLED_ELEMENTS)
    return tensor.detach().reshape(-1)[::step].float()
