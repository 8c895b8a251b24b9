"""Tiny random networks of every causal language model class that transformers has."""

from typing import Any

import torch
from torch import nn

from ..core.errors import InputError
from ..core.networks import quiet_libraries

VOCABULARY = 97
LAYERS = 4
"""So many that models which mix kinds of layers by fours have each."""
WIDTH = 32
SEED = 0

_SIZES: dict[tuple[str, ...], int] = {
    ("hidden_size", "n_embd", "d_model", "embed_dim", "dim", "model_dim"): WIDTH,
    (
        "embedding_size",
        "word_embed_proj_dim",
        "input_embedding_size",
        "embedding_dim",
        "emb_dim",
    ): WIDTH,
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"): LAYERS,
    ("encoder_layers", "num_decoder_layers", "num_encoder_layers"): LAYERS,
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"): 4,
    ("encoder_attention_heads", "linear_num_value_heads", "mamba_n_heads", "n_mamba_heads"): 4,
    ("num_key_value_heads", "num_kv_heads", "linear_num_key_heads", "n_head_kv"): 2,
    ("head_dim", "d_kv", "attention_head_dim", "global_head_dim", "swa_head_dim"): 8,
    ("linear_key_head_dim", "linear_value_head_dim", "mamba_d_head", "mamba_head_dim"): 16,
    ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_head_dim"): 8,
    ("swa_v_head_dim", "kv_channels"): 8,
    ("q_lora_rank", "kv_lora_rank", "o_lora_rank"): 16,
    ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"): 64,
    ("d_ff", "mamba_d_ssm", "ffn_hidden_size", "d_inner", "dff", "feed_forward_size"): 64,
    ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_hidden_size"): 32,
    ("intermediate_size_mlp", "shared_intermediate_size", "expert_ffn_hidden_size"): 32,
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"): 4,
    ("num_experts_per_tok", "moe_topk", "num_experts_per_token", "moe_k", "top_k_experts"): 2,
    ("n_group", "topk_group", "num_expert_group"): 1,
    ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"): 1,
    ("vocab_size", "vocab_size_per_layer_input"): VOCABULARY,
    ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"): 64,
    ("max_sequence_length", "context_length", "max_seq_length", "seq_length"): 64,
    ("sliding_window", "attention_window_size", "local_attention", "window_size"): 16,
    ("lru_width", "mamba_intermediate_size"): WIDTH,
    ("hidden_size_per_layer_input", "state_size", "mamba_d_state", "ssm_state_size"): 8,
    ("rotary_dim", "laurel_rank", "time_step_rank", "mamba_dt_rank"): 4,
    ("n_groups", "mamba_n_groups", "mamba_ngroups"): 1,
    ("num_kv_shared_layers", "num_nextn_predict_layers", "first_k_dense_replace"): 0,
    ("num_mem_blocks",): 1,
    ("chunk_size", "mamba_chunk_size", "index_topk"): 8,
}
"""What sizes are called, and what they become where a configuration has one of such a name."""
_OF_NOTHING = ("num_key_value_heads", "head_dim", "n_routed_experts", "num_experts_per_tok")
"""Sizes that are given also where a class' own default is none."""
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
    """A small configuration of a known one's class.

    Args:
        known: made of its defaults.
        changes: entries of the result.
        cut: whether lists with an entry for each layer are cut; otherwise the class makes its own.

    """
    entries: dict[str, Any] = {}
    given = known.to_dict()
    sizes = {name: size for names, size in _SIZES.items() for name in names}
    for name, value in given.items():
        inner = getattr(known, name, None) if isinstance(value, dict) else None
        is_size = isinstance(value, int) and not isinstance(value, bool)
        if name in sizes and (is_size or name in _OF_NOTHING):
            entries[name] = sizes[name]
        elif isinstance(value, list) and value and ("layer" in name or "block" in name):
            entries[name] = value[:LAYERS] if cut else None
        elif hasattr(inner, "to_dict"):
            entries[name] = _reduced(inner, changes if name == "text_config" else {}, cut)
    if "kv_lora_rank" in entries and "num_key_value_heads" in entries:  # every head has keys then
        entries["num_key_value_heads"] = entries.get("num_attention_heads")
    entries |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    if "text_config" not in given:
        entries |= changes
    return type(known)(**entries, use_cache=False, is_decoder=True)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
