"""A setting for a dictionary of SAELens' list: model, hook, a downstream SAE, number format, memory."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.cache import release_entry
from ..core.errors import InputError
from .registry import judge, model_type_of

_BYTES = {"float32": 4, "bfloat16": 2}
_LARGE = 1e9
"""Parameters from which weights are taken in bfloat16."""
_DISTANCE = 0.15
"""Of the model's layers, between what is steered and where collateral is read: 2 of GPT-2's 12, 4 of
Gemma-2 2B's 26, as in arXiv:2606.08365.
"""
_LAYER = re.compile(r"(?<![a-z0-9])(blocks\.|layer_?|l)(\d+)(?![0-9])", re.IGNORECASE)
_L0 = re.compile(r"l0_\d+")
_WIDTHS = (
    (re.compile(r"(?<![a-z0-9])w(?:idth_)?(\d+)(k|m)(?![a-z])", re.IGNORECASE), None),
    (re.compile(r"width-2pow(\d+)"), "power"),
    (re.compile(r"(?<![a-z0-9])(\d+)x(?![a-z0-9])"), "times"),
    (re.compile(r"(?<![a-z0-9])(\d+)k(?![a-z0-9])"), "thousand"),
)


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model without asking the hub."""

    hub: str
    parameters: float
    width: int
    n_layers: int
    gated: bool = False


MODELS: Mapping[str, KnownModel] = {
    "gpt2-small": KnownModel("gpt2", 0.124e9, 768, 12),
    "pythia-70m-deduped": KnownModel("EleutherAI/pythia-70m-deduped", 0.07e9, 512, 6),
    "gemma-2b": KnownModel("google/gemma-2b", 2.51e9, 2048, 18, True),
    "gemma-2b-it": KnownModel("google/gemma-2b-it", 2.51e9, 2048, 18, True),
    "gemma-2-2b": KnownModel("google/gemma-2-2b", 2.61e9, 2304, 26, True),
    "gemma-2-9b": KnownModel("google/gemma-2-9b", 9.24e9, 3584, 42, True),
    "gemma-2-9b-it": KnownModel("google/gemma-2-9b-it", 9.24e9, 3584, 42, True),
    "gemma-2-27b": KnownModel("google/gemma-2-27b", 27.2e9, 4608, 46, True),
    "mistral-7b": KnownModel("mistralai/Mistral-7B-v0.1", 7.24e9, 4096, 32),
    "qwen3-0.6b": KnownModel("Qwen/Qwen3-0.6B", 0.6e9, 1024, 28),
    "qwen3-1.7b": KnownModel("Qwen/Qwen3-1.7B", 1.72e9, 2048, 28),
    "qwen3-4b": KnownModel("Qwen/Qwen3-4B", 4.02e9, 2560, 36),
    "qwen3-8b": KnownModel("Qwen/Qwen3-8B", 8.19e9, 4096, 36),
    "qwen3-14b": KnownModel("Qwen/Qwen3-14B", 14.8e9, 5120, 40),
}
"""Models that the list calls by a short name, from their configurations on the hub."""
_SIZES: Sequence[tuple[str, float, int, int, bool]] = (
    (r"gemma-3-270m", 0.268e9, 640, 18, True),
    (r"gemma-3-1b", 1.0e9, 1152, 26, True),
    (r"gemma-3-4b", 4.3e9, 2560, 34, True),
    (r"gemma-3-12b", 12.2e9, 3840, 48, True),
    (r"gemma-3-27b", 27.4e9, 5376, 62, True),
    (r"llama.*-70b", 70.6e9, 8192, 80, True),
    (r"distill-llama-8b", 8.03e9, 4096, 32, False),
    (r"llama.*-8b", 8.03e9, 4096, 32, True),
    (r"qwen2\.5-7b", 7.62e9, 3584, 28, False),
    (r"qwen3-1\.7b", 1.72e9, 2048, 28, False),
    (r"qwen3-8b", 8.19e9, 4096, 36, False),
    (r"qwen3-30b-a3b", 30.5e9, 2048, 48, False),
    (r"gpt-oss-20b", 20.9e9, 2880, 24, False),
)
