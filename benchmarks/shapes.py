"""Models and SAEs of the real ones' shapes, with random weights: nothing is downloaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import SAE
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from ..core.models import LanguageModel, wrap_model
from ..core.saes import Dictionary, wrap_sae
from ..core.settings import SaeSetting

LENGTH = 48
PANEL = 2048
L0 = 70


@dataclass(frozen=True)
class Shape:
    """A model's configuration, where it is steered and read, and the SAEs there."""

    configure: Callable[[], PretrainedConfig]
    primary: str
    downstream: str
    n_features: int
    architecture: str
    delta: float
    """A coefficient that moves the residual stream visibly."""
    dtype: torch.dtype = torch.float32


def _gemma(layers: int) -> PretrainedConfig:
    return Gemma2Config(num_hidden_layers=layers, attn_implementation="eager")


def _llama(layers: int) -> PretrainedConfig:
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14_336,
        max_position_embeddings=8192,
    )


SHAPES = {
    "gpt2-small": Shape(
        lambda: GPT2Config(n_positions=64),
        "blocks.8.hook_resid_pre",
        "blocks.10.hook_resid_pre",
        24_576,
        "standard",
        10.0,
    ),
    "pythia-70m": Shape(
        lambda: GPTNeoXConfig(
            vocab_size=50_304,
            hidden_size=512,
            num_hidden_layers=6,
            num_attention_heads=8,
            intermediate_size=2048,
        ),
        "blocks.4.hook_resid_post",
        "blocks.5.hook_resid_post",
        32_768,
        "standard",
        10.0,
    ),
    "gemma-2-2b-4-layers": Shape(
        lambda: _gemma(4),
        "blocks.1.hook_resid_post",
        "blocks.3.hook_resid_post",
        16_384,
        "jumprelu",
        10.0,
    ),
    "gemma-2-2b": Shape(
        lambda: _gemma(26),
        "blocks.12.hook_resid_post",
        "blocks.16.hook_resid_post",
        16_384,
        "jumprelu",
        10.0,
        torch.bfloat16,
    ),
    "llama-3.1-8b": Shape(
        lambda: _llama(32),
        "blocks.16.hook_resid_post",
        "blocks.20.hook_resid_post",
        32_768,
        "topk",
        10.0,
        torch.bfloat16,
    ),
    "llama-3.1-8b-8-layers": Shape(
        lambda: _llama(8),
        "blocks.2.hook_resid_post",
        "blocks.5.hook_resid_post",
        32_768,
        "topk",
        10.0,
    ),
}
NEED_A_GPU = ("gemma-2-2b", "llama-3.1-8b", "llama-3.1-8b-8-layers")
SMALL = {
    "gpt2-tiny": Shape(
        lambda: GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=4, n_head=4),
        "blocks.1.hook_resid_pre",
        "blocks.3.hook_resid_pre",
        128,
        "standard",
        10.0,
    ),
    "llama-tiny": Shape(
        lambda: LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=96,
            max_position_embeddings=64,
        ),
        "blocks.1.hook_resid_post",
        "blocks.2.hook_resid_post",
        128,
        "topk",
        10.0,
    ),
}
"""Of the same families as real ones, for a check of the checks."""


def build_model(shape: Shape, device: str) -> LanguageModel:
    """The shape with random weights."""
    return wrap_network(build_network(shape, device), device)


def build_network(shape: Shape, device: str) -> Any:
    """Hugging Face's model of the shape, with random weights, always the same."""
    config = shape.configure()
    config.bos_token_id = config.eos_token_id = 0
    config.pad_token_id = None
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=shape.dtype)


def wrap_network(network: Any, device: str) -> LanguageModel:
    """A model of the package, with a tokenizer that knows a word for each token."""
    words = {"<eos>": 0, **{f"w{i}": i for i in range(1, network.config.vocab_size)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<eos>")),
        eos_token="<eos>",
        unk_token="<eos>",
        pad_token="<eos>",
    )
    return wrap_model(network, tokenizer, device=device)


def build_sae(model: LanguageModel, shape: Shape, hook: str, seed: int, device: str) -> Dictionary:
    """An SAE of the shape's width: random unit decoder rows, as sparse as the real ones."""
    generator = torch.Generator().manual_seed(seed)
    config = {
        "architecture": shape.architecture,
        "d_in": model.width,
        "d_sae": shape.n_features,
        "metadata": {"hook_name": hook},
    }
    sae = SAE.from_dict(config | ({"k": 32} if shape.architecture == "topk" else {}))
    decoder = torch.randn(shape.n_features, model.width, generator=generator)
    decoder = torch.nn.functional.normalize(decoder, dim=1)
    state = {
        "W_dec": decoder,
        "W_enc": decoder.T.contiguous(),
        "b_enc": torch.zeros(shape.n_features),
        "b_dec": torch.zeros(model.width),
    }
    if shape.architecture == "jumprelu":
        state["threshold"] = torch.full((shape.n_features,), 1e-3)
    sae.load_state_dict(state)
    made = wrap_sae(sae.to(device), SaeSetting(path="random"), model)
    if shape.architecture != "topk":
        (values,) = model.read(random_contexts(model, 4), [made.site])
        fed = made.read(values[:, 1:].flatten(0, 1)) @ made.encoder
        limit = fed.flatten().float().cpu().kthvalue(int(fed.numel() * (1 - L0 / shape.n_features)))
        made.sae.b_enc.data.fill_(-float(limit.values))
    return made


def random_contexts(model: LanguageModel, count: int) -> torch.Tensor:
    """Random tokens, ``[context, token]``."""
    generator = torch.Generator().manual_seed(3)
    size = (count, LENGTH)
    return torch.randint(1, model.config.vocab_size, size, generator=generator)
