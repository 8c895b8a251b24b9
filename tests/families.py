"""Random networks of every family, and how to read and steer them without our code or the bridge.

Every network has biases where its family can, norm weights that are not the identity, a sliding
window shorter than the contexts and soft-caps that bite, where the family knows them.
"""

from collections.abc import Callable
from typing import Any

import tiny
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

LAYERS = 4
WINDOW = 5
SHAPE = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": tiny.WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}

CONFIGURATIONS: dict[str, Callable[[], PretrainedConfig]] = {
    "gpt2": lambda: GPT2Config(
        vocab_size=tiny.VOCABULARY,
        n_layer=LAYERS,
        n_embd=tiny.WIDTH,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**SHAPE, rotary_pct=0.5, use_parallel_residual=True),
    "gpt_neox sequential": lambda: GPTNeoXConfig(**SHAPE, use_parallel_residual=False),
    "gemma2": lambda: Gemma2Config(
        **GROUPED,
        head_dim=12,
        query_pre_attn_scalar=10,
        sliding_window=WINDOW,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
    ),
    "llama": lambda: LlamaConfig(
        **GROUPED,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=WINDOW),
    "gemma3": lambda: Gemma3TextConfig(
        **GROUPED,
        head_dim=12,
        query_pre_attn_scalar=10,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
        },
    ),
    "qwen3": lambda: Qwen3Config(**GROUPED, head_dim=12, attention_bias=True),
    "gemma": lambda: GemmaConfig(**GROUPED, head_dim=12),
    "olmo2": lambda: Olmo2Config(**GROUPED, attention_bias=True),
    "phi3": lambda: Phi3Config(
        **GROUPED,
        sliding_window=WINDOW,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1000.0,
            "partial_rotary_factor": 0.5,
        },
    ),
    "qwen2": lambda: Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2
    ),
}
FAMILIES = tuple(CONFIGURATIONS)
"""Those that the fast evaluator knows."""
CONFIGURATIONS |= {
    "gpt_neox unbiased": lambda: GPTNeoXConfig(**SHAPE, attention_bias=False),
    "gemma2 biased": lambda: Gemma2Config(
        **GROUPED, head_dim=12, sliding_window=WINDOW, attention_bias=True
    ),
    "llama unbiased": lambda: LlamaConfig(**GROUPED),
    "llama half biased": lambda: LlamaConfig(**GROUPED, mlp_bias=True),
}
BIASES = tuple(name for name in CONFIGURATIONS if name not in FAMILIES)
"""The same families with biases elsewhere."""
CONFIGURATIONS["phi"] = lambda: PhiConfig(**SHAPE)
UNKNOWN = "phi"
"""One that it does not know; its unembedding has a bias, its layers are parallel."""


def network(family: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A seeded random network, untouched by any of our code."""
    return build(CONFIGURATIONS[family](), dtype)


def build(config: PretrainedConfig, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The same of a configuration."""
    torch.manual_seed(0)
    config.bos_token_id = config.eos_token_id = 0
    config.pad_token_id = None
    made = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in made.named_parameters():
        if "norm" in name or "ln_" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif name.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    return made.to(dtype).eval().requires_grad_(False)


def layers_of(model: Any) -> nn.ModuleList:
    if hasattr(model, "transformer"):
        return model.transformer.h
    return model.gpt_neox.layers if hasattr(model, "gpt_neox") else model.model.layers


def final_norm_of(model: Any) -> nn.Module:
    if hasattr(model, "transformer"):
        return model.transformer.ln_f
    if hasattr(model, "gpt_neox"):
        return model.gpt_neox.final_layer_norm
    return (
        model.model.final_layernorm if hasattr(model.model, "final_layernorm") else model.model.norm
    )


def head_projection_of(model: Any, layer: int) -> Tensor:
    """W_O, ``[head * d_head, d]``."""
    module, _ = module_at(model, f"blocks.{layer}.attn.hook_z", False)
    return module.weight if type(module).__name__ == "Conv1D" else module.weight.T


def width_at(model: Any, hook: str) -> int:
    """How many dimensions stand at a hook."""
    return len(head_projection_of(model, 0)) if hook.endswith("hook_z") else tiny.WIDTH


def lens(model: Any, directions: Tensor, hook: str) -> Tensor:
    """What directions at a hook promote by themselves: final norm and unembedding of each."""
    if hook.endswith("hook_z"):
        directions = directions @ head_projection_of(model, int(hook.split(".")[1]))
    return model.lm_head(final_norm_of(model)(directions))


def sites_of(family: str) -> tuple[str, ...]:
    """Names of the places of a layer that the family has."""
    parallel = family == "gpt_neox"
    middle = () if parallel else ("hook_resid_mid",)
    return (
        "hook_resid_pre",
        "attn.hook_z",
        "hook_attn_out",
        *middle,
        "hook_mlp_out",
        "hook_resid_post",
    )


def module_at(model: Any, hook: str, writing: bool) -> tuple[nn.Module, bool]:
    """The Hugging Face module behind a hook, and whether it is its input (else its output)."""
    _, number, name = hook.split(".", 2)
    layer = layers_of(model)[int(number)]
    if name in ("hook_resid_pre", "hook_resid_post"):
        return layer, name == "hook_resid_pre"
    if hasattr(layer, "self_attn") and hasattr(layer.self_attn, "dense"):  # Phi
        projection, after = layer.self_attn.dense, None
        added, mlp = projection, layer.mlp
    elif hasattr(layer, "attention"):  # GPT-NeoX
        projection, after = layer.attention.dense, layer.post_attention_layernorm
        added, mlp = projection, layer.mlp
    elif hasattr(layer, "attn"):  # GPT-2
        projection, after = layer.attn.c_proj, layer.ln_2
        added, mlp = projection, layer.mlp
    elif hasattr(layer, "pre_feedforward_layernorm"):  # Gemma-2 and Gemma-3
        projection, after = layer.self_attn.o_proj, layer.pre_feedforward_layernorm
        added, mlp = layer.post_attention_layernorm, layer.post_feedforward_layernorm
    elif not hasattr(layer, "input_layernorm"):  # OLMo-2: norms stand behind, none before
        projection, after = layer.self_attn.o_proj, layer.mlp
        added, mlp = layer.post_attention_layernorm, layer.post_feedforward_layernorm
    else:
        projection, after = layer.self_attn.o_proj, layer.post_attention_layernorm
        added, mlp = projection, layer.mlp
    if name == "hook_resid_mid":  # written through what attention adds to it
        assert after is not None, "parallel layers have no middle"
        return (added, False) if writing else (after, True)
    return {
        "attn.hook_z": (projection, True),
        "hook_attn_out": (added, False),
        "hook_mlp_out": (mlp, False),
    }[name]


def _put(module: nn.Module, is_input: bool, changed: Callable[[Tensor], Tensor]) -> Any:
    """Put ``changed`` of what stands at a module in its place."""
    if is_input:
        return module.register_forward_pre_hook(lambda _, inputs: (changed(inputs[0]), *inputs[1:]))
    return module.register_forward_hook(
        lambda _, inputs, output: (
            (changed(output[0]), *output[1:]) if isinstance(output, tuple) else changed(output)
        )
    )


def _at_final(module: nn.Module, is_input: bool, change: Callable[[Tensor], Tensor]) -> Any:
    """Put ``change`` of the final token's values in the place of these."""

    def changed(values: Tensor) -> Tensor:
        values = values.clone()
        values[:, -1] = change(values[:, -1])
        return values

    return _put(module, is_input, changed)


@torch.no_grad()
def run_pushed(model: Any, tokens: Tensor, write: str, pushes: Tensor) -> Tensor:
    """Logits of all tokens, with every row but its first token pushed at ``write``."""

    def changed(values: Tensor) -> Tensor:
        values = values.clone()
        values[:, 1:] += pushes[:, None]
        return values

    handle = _put(*module_at(model, write, True), changed)
    try:
        return model(tokens, use_cache=False).logits
    finally:
        handle.remove()


@torch.no_grad()
def run(
    model: Any, tokens: Tensor, read: str, write: str | None = None, push: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Final-token logits and what stands at ``read``, with ``push`` added at ``write``."""
    seen: list[Tensor] = []

    def keep(values: Tensor) -> Tensor:
        seen.append(values.clone())
        return values

    handles = []
    if write is not None and push is not None:
        handles.append(_at_final(*module_at(model, write, True), lambda values: values + push))
    handles.append(_at_final(*module_at(model, read, False), keep))
    try:
        logits = model(tokens, use_cache=False).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    (values,) = seen
    return logits, values


@torch.no_grad()
def read_all(model: Any, tokens: Tensor, hook: str) -> Tensor:
    """What stands at a hook at every token, ``[context, token, width]``."""
    seen: list[Tensor] = []

    def keep(values: Any) -> None:
        seen.append((values[0] if isinstance(values, tuple) else values).clone())

    module, is_input = module_at(model, hook, False)
    if is_input:
        handle = module.register_forward_pre_hook(lambda _, inputs: keep(inputs))
    else:
        handle = module.register_forward_hook(lambda _, inputs, output: keep(output))
    try:
        model(tokens, use_cache=False)
    finally:
        handle.remove()
    (values,) = seen
    return values
