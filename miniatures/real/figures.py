"""How good the SAEs are, measured on text that none of them saw."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor

from ...core.massive import is_massive
from ..saes import quality
from .harvest import WINDOWS, streams
from .recipe import SITES, RealRecipe

Change = Callable[[Tensor], Tensor]
_AT_ONCE = 32


def measure(
    folder: Path, saved: Mapping[str, Path], recipe: RealRecipe, model: Any
) -> dict[str, dict[str, float]]:
    """Figures of saved SAEs, by site, on the validation windows. BOS and massive tokens are left out, and
    left as they are where an SAE's reconstruction takes the stream's place.

    Those of :func:`.saes.quality`, and: ``massive_share`` of the tokens behind BOS; ``widest_share``,
    the share of the variance in the two widest dimensions; ``first_norm``, of the stream at BOS, and
    ``norm``, the median of the others; the model's mean next-token losses as it is, ``loss``, with
    reconstructions, ``spliced_loss``, with zeros, ``zeroed_loss``; ``recovered`` =
    (zeroed_loss - spliced_loss) / (zeroed_loss - loss).
    """
    rows = load_file(folder / WINDOWS)["validation"]
    read = [streams(model, batch) for batch in rows.split(_AT_ONCE)]
    some = rows[: recipe.spliced_windows]
    loss = mean_loss(model, some)
    found = {}
    for site in SITES:
        sae = SAE.load_from_disk(str(saved[site]), dtype="float32")
        stream = torch.cat([part[site] for part in read])
        spliced = spliced_loss(model, some, site, _reconstruction(sae))
        zeroed = spliced_loss(model, some, site, torch.zeros_like)
        found[site] = {
            **_of_stream(sae, stream),
            "loss": loss,
            "spliced_loss": spliced,
            "zeroed_loss": zeroed,
            "recovered": (zeroed - spliced) / (zeroed - loss),
        }
    return found


def _reconstruction(sae: SAE) -> Change:
    def change(values: Tensor) -> Tensor:
        reconstructed: Tensor = sae.decode(sae.encode(values))
        return reconstructed

    return change


def _of_stream(sae: SAE, stream: Tensor) -> dict[str, float]:
    later = stream[:, 1:].flatten(0, 1)
    massive = is_massive(later)
    kept = later[~massive]
    variance = kept.var(dim=0)
    return {
        **quality(sae, kept, n_widest=2),
        "massive_share": float(massive.float().mean()),
        "widest_share": float(variance.topk(2).values.sum() / variance.sum()),
        "first_norm": float(stream[0, 0].norm()),
        "norm": float(kept.norm(dim=1).median()),
    }


@torch.no_grad()
def mean_loss(model: Any, rows: Tensor) -> float:
    """Mean next-token loss, in nats."""
    parts = rows.split(_AT_ONCE)
    losses = (float(model(part, labels=part, use_cache=False).loss) * len(part) for part in parts)
    return sum(losses) / len(rows)


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
        return mean_loss(model, rows)
    finally:
        handle.remove()
