"""A fine-tuned model against its base: which features' mean activations changed on text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.config import Target
from ..adapters.encoding import reference_texts
from ..adapters.examples import Examples
from ..adapters.model import load_target
from ..adapters.opening import opened_once
from ..adapters.places import text_config
from ..adapters.positions import starts_of
from ..adapters.reference import reference_rows, values_at
from ..adapters.slices import FIRES
from ..core.errors import InputError
from ..core.networks import load_network, load_source
from ..core.progress import Reporter
from ..core.records.tuned import TunedFeature, TunedRecord
from ..core.saes import hook_of, open_sae
from ..core.settings import Setting
from ..naming.source import Described, read_descriptions
from ..predictor.evidence.resampling import bootstrap

MOST_TOKENS = 16_384
_MAX_LENGTH = 256
_RESAMPLES = 1000


@dataclass(frozen=True)
class _Seen:
    """Of one model: sums over the tokens of each text, ``[text, feature]``."""

    sums: Tensor
    fires: Tensor
    """Share of tokens, of all texts together."""
    explained: float


def compare_models(
    base: Setting,
    tuned: str,
    texts: Examples,
    count: int,
    descriptions: str | Path | None,
    seed: int,
    device: str,
    out: Reporter,
) -> TunedRecord:
    """Mean activations of every feature, before and after a fine-tuning, on the same tokens.

    Both models read the base model's tokens; BOS at the start is left out.

    Args:
        base: names the base model and the SAE.
        tuned: directory or hub id of the tuned model.
        texts: what they are compared on.
        count: how many features are shown.
        descriptions: of the features.
        seed: of the resampling.
        device: where the models and the SAE are put, one after the other.
        out: shows how far it is.

    Raises:
        InputError: a model or SAE cannot be loaded, or they do not fit each other.

    """
    sae, fingerprint = open_sae(base.sae, base.folder, device)
    if sae.cfg.reshape_activations == "hook_z":
        sae.turn_off_forward_pass_hook_z_reshaping()
    hook = hook_of(sae, base.sae)
    target = Target.of(base.sae, base.folder, hook, None, fingerprint)
    network, tokenizer = load_network(base, attention=None)
    network.to(device)
    rows = _rows(network, tokenizer, texts)
    with opened_once():
        before = _see(network, target, rows, sae, "base", out)
        shape = _shape(network)
        del network
        other, _ = load_source(tuned, Path(tuned).is_dir(), base.model.dtype, None)
        if _shape(other) != shape:
            raise InputError(
                f"--tuned {tuned} has {_shape(other)} layers and dimensions, the base model {shape}; "
                f"expected a fine-tuning of {base.model.name}; give that"
            )
        after = _see(other.to(device), target, rows, sae, "tuned", out)
    n_tokens = before.sums.new_tensor(_counted(rows, other))
    counts = torch.as_tensor(bootstrap(len(rows), _RESAMPLES, seed))
    difference = after.sums - before.sums
    resampled = (counts @ difference) / (counts @ n_tokens)[:, None]
    ends = torch.quantile(resampled, torch.tensor([0.025, 0.975], dtype=resampled.dtype), dim=0)
    total = float(n_tokens.sum())
    means = [seen.sums.sum(dim=0) / total for seen in (before, after)]
    residual = (means[1] - means[0]).abs() * sae.W_dec.detach().cpu().double().norm(dim=1)
    chosen = residual.argsort(descending=True, stable=True)[:count].tolist()
    names: dict[int, str] = {}
    if descriptions is not None:
        names = read_descriptions(
            descriptions, Described(base.sae, len(residual), fingerprint), chosen, out
        )
    return TunedRecord(
        base=base.model.name,
        tuned=tuned,
        sae=base.sae.label,
        hook=hook,
        n_texts=len(rows),
        n_tokens=int(total),
        n_changed=int(((ends[0] > 0) | (ends[1] < 0)).sum()),
        explained_before=before.explained,
        explained_after=after.explained,
        features=[
            TunedFeature(
                feature=feature,
                before=float(means[0][feature]),
                after=float(means[1][feature]),
                low=float(ends[0, feature]),
                high=float(ends[1, feature]),
                fires_before=float(before.fires[feature]),
                fires_after=float(after.fires[feature]),
                residual=float(residual[feature]),
                description=names.get(feature),
            )
            for feature in chosen
        ],
    )


def _shape(network: Any) -> tuple[int, int]:
    config = text_config(network)
    return int(config.num_hidden_layers), int(config.hidden_size)


def _rows(network: Any, tokenizer: Any, texts: Examples) -> list[list[int]]:
    rows, total = [], 0
    for row in reference_rows(
        network, tokenizer, reference_texts(texts.rows, tokenizer), _MAX_LENGTH, bos=True
    ):
        if len(row) > 1:
            rows.append(row)
            total += len(row)
        if total >= MOST_TOKENS:
            break
    if len(rows) < 2:
        raise InputError(
            f"--data has {len(rows)} texts of use; expected 2 at least, for an interval; give more"
        )
    return rows


def _counted(rows: Sequence[list[int]], network: Any) -> list[int]:
    starts = starts_of(text_config(network))
    return [len(row) - (row[0] in starts) for row in rows]


@torch.no_grad()
def _see(
    network: Any, target: Target, rows: list[list[int]], sae: Any, name: str, out: Reporter
) -> _Seen:
    network.eval().requires_grad_(False)
    part = load_target(replace(target, fingerprint=None), network).part
    skipped = starts_of(text_config(network))
    sums, total, errors, squares = [], 0, 0.0, 0.0
    fires = torch.zeros(len(sae.W_dec), dtype=torch.float64)
    summed = torch.zeros(sae.cfg.d_in, dtype=torch.float64)
    with out.bar(name, len(rows)) as tick:
        for row in rows:
            values = values_at(network, target.hook, [row], skipped=skipped)
            values = values.to(sae.dtype)
            there = values - values.mean(dim=-1, keepdim=True) if part.centred else values
            latents = sae.encode(there)
            missed = (there - sae.decode(latents)).cpu().double()
            there, latents = there.cpu(), latents.cpu()
            sums.append(latents.double().sum(dim=0))
            fires += (latents > FIRES).double().sum(dim=0)
            errors += float(missed.square().sum())
            squares += float(there.double().square().sum())
            summed += there.double().sum(dim=0)
            total += len(values)
            tick(1)
    variance = squares - float(summed.square().sum()) / total
    return _Seen(torch.stack(sums), fires / total, 1 - errors / variance)
