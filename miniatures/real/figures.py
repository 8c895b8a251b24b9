"""How good the SAEs are, measured on text that none of them saw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor

from ..saes import quality
from .harvest import WINDOWS, is_massive, streams
from .recipe import SITES, RealRecipe

Change = Callable[[Tensor], Tensor]


def measure(
    folder: Path, saved: Path, site: str, recipe: RealRecipe, model: Any
) -> dict[str, float]:
    """Figures of a saved SAE on the validation windows. BOS and massive tokens are left out, and left
    as they are where the SAE's reconstruction takes the stream's place.

    Those of :func:`.saes.quality`, and: ``massive_share`` of the tokens behind BOS; ``widest_share``,
    the share of the variance in the two widest dimensions; ``first_norm``, of the stream at BOS, and
    ``norm``, the median of the others; the model's mean next-token losses as it is, ``loss``, with
    reconstructions, ``spliced_loss``, with zeros, ``zeroed_loss``; ``recovered`` =
    (zeroed_loss - spliced_loss) / (zeroed_loss - loss).
    """
    rows = load_file(folder / WINDOWS)["validation"]
    sae = SAE.load_from_disk(str(saved), dtype="float32")
    stream = torch.cat([streams(model, batch)[site] for batch in rows.split(32)])
    later = stream[:, 1:].flatten(0, 1)
    massive = is_massive(later)
    kept = later[~massive]
    variance = kept.var(dim=0)
    some = rows[: recipe.spliced_windows]
    changes: dict[str, Change] = {
        "loss": lambda values: values,
        "spliced_loss": lambda values: sae.decode(sae.encode(values)),
        "zeroed_loss": torch.zeros_like,
    }
    losses = {name: spliced_loss(model, some, site, change) for name, change in changes.items()}
    lost = losses["zeroed_loss"] - losses["loss"]
    return {
        **quality(sae, kept, n_widest=2),
        "massive_share": float(massive.float().mean()),
        "widest_share": float(variance.topk(2).values.sum() / variance.sum()),
        "first_norm": float(stream[0, 0].norm()),
        "norm": float(kept.norm(dim=1).median()),
        **losses,
        "recovered": (losses["zeroed_loss"] - losses["spliced_loss"]) / lost,
    }


@torch.no_grad()
def spliced_loss(model: Any, rows: Tensor, site: str, change: Change) -> float:
    """Mean next-token loss with what stands at a site changed, but for BOS and massive tokens."""

    def hooked(module: object, given: object, output: Any) -> Any:
        values = output if isinstance(output, Tensor) else output[0]
        kept = is_massive(values.flatten(0, 1)).view(values.shape[:2])
        kept[:, 0] = True
        changed = torch.where(kept[..., None], values, change(values))
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handle = model.model.layers[SITES[site]].register_forward_hook(hooked)
    try:
        total = sum(
            float(model(part, labels=part, use_cache=False).loss) * len(part)
            for part in rows.split(16)
        )
    finally:
        handle.remove()
    return total / len(rows)
