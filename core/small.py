"""Configurations of Hugging Face models with sizes reduced, and all else as it was."""

from collections.abc import Callable, Mapping
from typing import Any

WIDTH = 32
VOCABULARY = 97
SIZES: dict[tuple[str, ...], int] = {
    ("hidden_size", "n_embd", "d_model", "embed_dim", "dim", "model_dim"): WIDTH,
    (
        "embedding_size",
        "word_embed_proj_dim",
        "input_embedding_size",
        "embedding_dim",
        "emb_dim",
    ): WIDTH,
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
    ("chunk_size", "mamba_chunk_size", "index_topk"): 8,
}
"""What sizes are called, and what they become where a configuration has one of such a name."""
_OF_NOTHING = ("num_key_value_heads", "head_dim", "n_routed_experts", "num_experts_per_tok")
"""Sizes that are given also where a configuration has none."""
_ABOUT = (
    "_name_or_path",
    "architectures",
    "dtype",
    "model_type",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
)
"""Entries that say where a configuration comes from."""


def shrink(
    known: Any,
    more_sizes: Mapping[str, int],
    layered: Callable[[list[Any]], list[Any] | None],
    start: Callable[[dict[str, Any]], dict[str, Any]],
    changes: Mapping[str, object],
) -> Any:
    """A small configuration of a known one's class.

    Args:
        known: of Hugging Face.
        more_sizes: further sizes by name.
        layered: from a list with an entry for each layer to that of the small one; None: the class
            makes its own.
        start: from the known one's entries to those that are kept as they are.
        changes: entries of the (text part of the) result.

    """
    given = known.to_dict()
    entries = {name: value for name, value in start(given).items() if name not in _ABOUT}
    sizes = {name: size for names, size in SIZES.items() for name in names} | dict(more_sizes)
    for name, value in given.items():
        inner = getattr(known, name, None) if isinstance(value, dict) else None
        is_size = isinstance(value, int) and not isinstance(value, bool)
        if name in sizes and (is_size or name in _OF_NOTHING):
            entries[name] = sizes[name]
        elif isinstance(value, list) and value and ("layer" in name or "block" in name):
            entries[name] = layered(value)
        elif hasattr(inner, "to_dict"):
            of_text = changes if name == "text_config" else {}
            entries[name] = shrink(inner, more_sizes, layered, start, of_text)
    if "kv_lora_rank" in entries and "num_key_value_heads" in entries:  # every head has keys then
        entries["num_key_value_heads"] = entries.get("num_attention_heads")
    entries |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    if "text_config" not in given:
        entries |= changes
    return type(known)(**(entries | {"use_cache": False, "is_decoder": True}))
