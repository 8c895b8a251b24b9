"""The card beside the weights: what they are, what they saw, how good they are."""

import json
from pathlib import Path
from typing import Any

from .model import ModelRecipe
from .saes import SaeRecipe
from .text import HELD_OUT_PACKAGES, TRAINED_PACKAGES

KINDS_OF_MODEL = {
    "gpt2": "GPT-2",
    "pythia": "GPT-NeoX, Pythia's family (parallel layers, rotary positions)",
    "gemma": "Gemma-2 (a sliding window of 32 in every other layer, soft-caps)",
    "llama": "Llama (rotary positions, grouped queries, gated MLP)",
}


def write_card(folder: Path, model: ModelRecipe, sae: SaeRecipe) -> None:
    """Write ``README.md`` from the figures that the training stages left."""
    figures = _figures(folder / "model")
    held_out = figures["held_out_package_loss"]
    lines = [
        f"# {model.name}",
        "",
        f"A miniature {KINDS_OF_MODEL[model.family]}, with sparse autoencoders of its",
        "residual stream, trained for cleansteer's demonstrations and tests. Its weights are stored",
        "as float16; every figure below was measured on them as stored. Written by",
        f"`python -m cleansteer.miniatures {model.name}`.",
        "",
        "## Model",
        "",
        (
            f"{figures['parameters']:,} parameters: {model.n_layer} layers, width {model.n_embd},"
            f" {model.n_head} heads, byte-level BPE of {model.vocab_size:,} tokens,"
            f" {model.n_positions} positions."
        ),
        (
            f"Trained for {model.steps:,} steps of {model.batch_size} x {model.n_positions} tokens on"
            f" {figures['training_texts']:,} docstrings ({figures['training_tokens']:,} tokens), white"
            " space normalised, of"
        ),
        f"{', '.join(TRAINED_PACKAGES)}: 92 % of their source files, by a hash of the file's name.",
        "",
        "| text | loss (nats a token) |",
        "|---|---|",
        f"| training files | {figures['training_loss']:.3f} |",
        f"| validation files of the same packages | {figures['validation_loss']:.3f} |",
        *(f"| held-out package {name} | {held_out[name]:.3f} |" for name in HELD_OUT_PACKAGES),
        "",
        "## Held out",
        "",
        f"No text of **{', '.join(HELD_OUT_PACKAGES)}** was seen by the model, the tokenizer or the",
        "SAEs: they are topics for adapters to learn.",
        "",
        "## Sparse autoencoders",
        "",
        (
            f"Trained with SAELens on {sae.training_samples:,} residual streams of"
            f" {sae.harvested_tokens:,} tokens, decoder"
        ),
        "norms folded to 1. `jumprelu` was trained as BatchTopK. Measured on 100,000 tokens of the",
        "validation files in contexts of 48 tokens; dead: fires on none of them.",
        "",
        "| SAE | hook | features | explained variance | L0 | dead |",
        "|---|---|---|---|---|---|",
    ]
    for config_file in sorted(folder.glob("*/*/cfg.json")):
        quality = _figures(config_file.parent)
        config = json.loads(config_file.read_text("utf-8"))
        lines.append(
            f"| {config_file.parent.parent.name}/{config_file.parent.name} |"
            f" {config['metadata']['hook_name']} | {config['d_sae']:,} |"
            f" {quality['explained_variance']:.3f} | {quality['l0']:.1f} |"
            f" {quality['dead_share']:.1%} |"
        )
    (folder / "README.md").write_text("\n".join(lines) + "\n", "utf-8")


def _figures(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "figures.json").read_text("utf-8"))
    return data
