"""Train the miniatures' sparse autoencoders with SAELens."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata, TrainingSAE, TrainingSAEConfig
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file
from torch import Tensor

FIRES_ABOVE = 1e-6


@dataclass(frozen=True)
class SaeRecipe:
    """Training common to all the SAEs of a miniature."""

    n_features: int = 1024
    seed: int = 0
    harvested_tokens: int = 2_000_000
    training_samples: int = 4_000_000
    batch_size: int = 2048
    learning_rate: float = 1e-3
    context_length: int = 128


def variant(kind: str, recipe: SaeRecipe) -> tuple[str, SaeRecipe]:
    """What a kind is trained as: ``topk-2x`` is ``topk`` with twice the recipe's features."""
    architecture, _, times = kind.partition("-")
    widened = replace(recipe, n_features=recipe.n_features * int(times.removesuffix("x") or 1))
    return architecture, widened


def training_sae(kind: str, recipe: SaeRecipe, width: int, metadata: SAEMetadata) -> TrainingSAE:
    """An untrained SAE of one of the kinds.

    ``relu``: L1 penalty. ``topk``: TopK with auxiliary loss (Gao et al. 2024). ``jumprelu``:
    BatchTopK (Bussmann et al. 2024), which SAELens saves as a JumpReLU SAE whose threshold
    reproduces the batch's selection; an L0 penalty with straight-through gradients left either
    L0 near 190 or most features dead at this size.
    """
    common = {"d_in": width, "d_sae": recipe.n_features, "metadata": metadata}
    steps = recipe.training_samples // recipe.batch_size
    if kind == "relu":
        return StandardTrainingSAE(
            StandardTrainingSAEConfig(**common, l1_coefficient=2.0, l1_warm_up_steps=steps // 10)
        )
    if kind == "jumprelu":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common, k=32))
    if kind == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(**common, k=24))
    raise ValueError(f"unknown kind of SAE {kind!r}")


def shuffled(activations: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of rows, every epoch in a new seeded order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(activations), generator=generator)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield activations[order[start : start + batch_size]]


def train_sae(
    kind: str, recipe: SaeRecipe, activations: Tensor, model_name: str, hook: str
) -> TrainingSAE[TrainingSAEConfig]:
    """Train one SAE on harvested activations, ``[token, d]``."""
    torch.manual_seed(recipe.seed)
    metadata = SAEMetadata(
        model_name=model_name, hook_name=hook, context_size=recipe.context_length, prepend_bos=True
    )
    sae = training_sae(kind, recipe, activations.shape[1], metadata)
    sae.b_dec.data = activations[:100_000].mean(dim=0)
    samples = recipe.training_samples // recipe.batch_size * recipe.batch_size
    steps = samples // recipe.batch_size
    config = SAETrainerConfig(
        total_training_samples=samples,
        train_batch_size_samples=recipe.batch_size,
        lr=recipe.learning_rate,
        lr_end=recipe.learning_rate / 10,
        lr_warm_up_steps=steps // 50,
        lr_decay_steps=steps // 4,
        dead_feature_window=200,
    )
    data = shuffled(activations, recipe.batch_size, recipe.seed)
    return SAETrainer(cfg=config, sae=sae, data_provider=data).fit()


def save_sae(sae: TrainingSAE[TrainingSAEConfig], folder: Path) -> SAE:
    """Save for inference: decoder norms folded to 1, weights as float16; returns what loads."""
    sae.fold_W_dec_norm()
    sae.save_inference_model(folder)
    weights = folder / "sae_weights.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights)
    config_file = folder / "cfg.json"
    config = json.loads(config_file.read_text("utf-8"))
    config_file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")
    return SAE.load_from_disk(str(folder), dtype="float32")


@torch.no_grad()
def quality(sae: SAE, activations: Tensor, n_widest: int = 0) -> dict[str, float]:
    """explained_variance = 1 - sum norm2(x - x') / sum norm2(x - mean x); l0 = mean number of
    features that fire; dead_share = share of features that never fire on these activations.

    With ``n_widest``, explained_variance_without_widest too: of the dimensions but those of the largest
    variance.
    """
    total_l0 = 0.0
    error = torch.zeros(activations.shape[1], dtype=torch.float64)
    firings = torch.zeros(sae.cfg.d_sae)
    for batch in activations.split(8192):
        acts = sae.encode(batch.float())
        error += (sae.decode(acts) - batch).square().sum(dim=0)
        fires = acts > FIRES_ABOVE
        total_l0 += fires.sum().item()
        firings += fires.sum(dim=0)
    variance = activations.double().var(dim=0, correction=0) * len(activations)
    figures = {"explained_variance": 1 - float(error.sum() / variance.sum())}
    if n_widest:
        kept = variance.argsort()[:-n_widest]
        ratio = error[kept].sum() / variance[kept].sum()
        figures["explained_variance_without_widest"] = 1 - float(ratio)
    return figures | {
        "l0": total_l0 / len(activations),
        "dead_share": (firings == 0).float().mean().item(),
    }
