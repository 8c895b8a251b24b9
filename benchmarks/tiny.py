"""Tiny random networks of every causal language model class that transformers has."""

from typing import Any

import torch
from torch import nn

from ..core.errors import InputError
from ..core.networks import quiet_libraries
from ..core.small import VOCABULARY, shrink

__all__ = ["LAYERS", "SEED", "VOCABULARY", "classes", "tiny_network", "tiny_tokenizer"]

LAYERS = 4
"""So many that models which mix kinds of layers by fours have each."""
SEED = 0
_LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "decoder_layers",
    "encoder_layers",
    "num_decoder_layers",
    "num_encoder_layers",
)
_FEW = {
    "num_kv_shared_layers": 0,
    "num_nextn_predict_layers": 0,
    "first_k_dense_replace": 0,
    "num_mem_blocks": 1,
}
_SIZES = dict.fromkeys(_LAYERS, LAYERS) | _FEW
_MOST_PARAMETERS = 20_000_000


def classes() -> list[str]:
    """Model types of which transformers has a causal language model, each class once."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    first: dict[str, str] = {}
    for model_type, name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()):
        first.setdefault(str(name), model_type)
    return sorted(first.values())


def tiny_network(model_type: str, **changes: object) -> nn.Module:
    """A random network of the class that transformers takes for a model type: its own defaults, with
    sizes reduced by their names; norms and biases are not the identity.

    Args:
        model_type: Hugging Face's name of the architecture.
        changes: entries of its (text) configuration.

    Raises:
        InputError: it cannot be built small; the message says why.

    """
    from transformers import AutoConfig

    refused: Exception | None = None
    for cut in (False, True):
        try:
            with quiet_libraries():
                network = _built(_reduced(AutoConfig.for_model(model_type), changes, cut))
            break
        except Exception as error:  # whatever a class does with small sizes
            refused = refused or error
    else:
        assert refused is not None
        raise InputError(
            f"model type {model_type!r} is not built small: {_told(refused)}"
        ) from refused
    network.config.architectures = [type(network).__name__]  # as in saved models
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in network.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data += 0.2 * drawn
        elif "router" not in name and "gate.weight" not in name:
            parameter.data += 0.1 * drawn
    made: nn.Module = network.float().eval().requires_grad_(False)
    return made


def _built(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        outline: Any = AutoModelForCausalLM.from_config(config)
    count = sum(parameter.numel() for parameter in outline.parameters())
    if count > _MOST_PARAMETERS:
        raise InputError(
            f"{count / 1e6:.0f} million parameters with all sizes reduced that are known by name"
        )
    torch.manual_seed(SEED)
    network: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        network(torch.arange(1, 9)[None], use_cache=False)
    return network


def _reduced(known: Any, changes: dict[str, object], cut: bool) -> Any:
    return shrink(
        known, _SIZES, lambda each: each[:LAYERS] if cut else None, lambda given: {}, changes
    )


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def tiny_tokenizer() -> Any:
    """A tokenizer of words ``w1``, ``w2`` ..., one for each token of :func:`tiny_network`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    made = Tokenizer(WordLevel(words, unk_token="<eos>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", unk_token="<eos>")
