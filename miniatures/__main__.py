"""``python -m cleansteer.miniatures [NAME...] [--out DIR] [--stage all|model|saes|card]
[--kind KIND]``; ``python -m cleansteer.miniatures smollm2 [...]`` trains the SAEs of a real model.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from .card import write_card
from .model import ModelRecipe, crops, token_stream, train_model
from .real import program
from .saes import SaeRecipe, quality, save_sae, train_sae, variant
from .text import TRAINED_PACKAGES, gather

KINDS = {
    "mini-gpt2": ("relu", "jumprelu", "topk"),
    "mini-pythia": ("relu",),
    "mini-gemma": ("jumprelu",),
    "mini-llama": ("topk", "topk-2x"),
}
"""The miniatures, and the kinds of SAE that each of them has: the paper's pairs of both, and as there
a wider dictionary of Llama's family, for the steered and the downstream place alike."""
HOOKS = {"primary": 2, "downstream": 3}
"""Layers whose entering residual stream the SAEs read."""
QUALITY_CONTEXT = 48
QUALITY_TOKENS = 100_000


def harvest(
    model: PreTrainedModel, stream: torch.Tensor, length: int, n_tokens: int, seed: int
) -> dict[str, torch.Tensor]:
    """Residual streams, ``[token, d]``, for each of ``HOOKS``, over random crops of a stream."""
    batch = 64
    kept: dict[str, list[torch.Tensor]] = {site: [] for site in HOOKS}
    source = crops(stream, length, batch, model.config.bos_token_id, seed)
    with torch.no_grad():
        for _ in range(-(-n_tokens // (batch * length))):
            hidden = model.base_model(next(source), output_hidden_states=True).hidden_states
            for site, layer in HOOKS.items():
                kept[site].append(hidden[layer].flatten(0, 1))
    return {site: torch.cat(parts)[:n_tokens] for site, parts in kept.items()}


def train_model_stage(recipe: ModelRecipe, folder: Path) -> None:
    """Train and save the language model, its tokenizer and its figures."""
    model, tokenizer, _, figures = train_model(recipe)
    model.half().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def train_sae_stage(recipe: SaeRecipe, folder: Path, name: str, kinds: Sequence[str]) -> None:
    """Train and save SAEs of a saved model, with their figures."""
    model = AutoModelForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    training = token_stream(gather(TRAINED_PACKAGES, "train", recipe.seed), tokenizer)
    activations = harvest(
        model, training, recipe.context_length, recipe.harvested_tokens, recipe.seed + 1
    )
    validation = token_stream(gather(TRAINED_PACKAGES, "validation", recipe.seed), tokenizer)
    fresh = harvest(model, validation, QUALITY_CONTEXT, QUALITY_TOKENS, recipe.seed + 2)
    for kind in kinds:
        architecture, widened = variant(kind, recipe)
        for site, layer in HOOKS.items():
            hook = f"blocks.{layer}.hook_resid_pre"
            sae = train_sae(architecture, widened, activations[site], name, hook)
            target = folder / kind / site
            saved = save_sae(sae, target)
            figures = quality(saved, fresh[site])
            (target / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
            print(kind, site, figures, flush=True)


def main() -> None:
    """Run the stages that were asked for."""
    if sys.argv[1:2] == [program.NAME]:
        raise SystemExit(program.run(sys.argv[2:]))
    parser = argparse.ArgumentParser(description="Retrain the miniature models and their SAEs.")
    parser.add_argument("names", nargs="*", choices=KINDS, metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--stage", choices=("all", "model", "saes", "card"), default="all")
    kinds = sorted({kind for kinds in KINDS.values() for kind in kinds})
    parser.add_argument("--kind", choices=kinds, help="only the SAEs of this kind")
    arguments = parser.parse_args()
    for name in arguments.names or KINDS:
        recipe = ModelRecipe(name, family=name.removeprefix("mini-"))
        folder = arguments.out / name
        if arguments.stage in ("all", "model"):
            train_model_stage(recipe, folder)
        if arguments.stage in ("all", "saes"):
            wanted = [kind for kind in KINDS[name] if arguments.kind in (None, kind)]
            train_sae_stage(SaeRecipe(), folder, name, wanted)
        write_card(folder, recipe, SaeRecipe())


if __name__ == "__main__":
    main()
