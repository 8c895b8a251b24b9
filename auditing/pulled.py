"""A LoRA pulled back to the features of an SAE.

A LoRA changes weights by B A, which write to the residual stream in the directions of B, or read it in
those of A. With F the directions on one side of the SAE's hook and their sizes, the share of F that
features S explain is |P_S F|^2 / |F|^2, P_S projecting on their decoder directions. Features are taken
one by one, each the one that adds most (orthogonal matching pursuit; Y. Pati, R. Rezaiifar and P.
Krishnaprasad, "Orthogonal Matching Pursuit", Asilomar Conference (1993)). A random F of the same rank
is explained in part too, and tells what a share is worth.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Reporter
from ..core.records.pulled import PulledFeature, PulledRecord, PulledSide, SingularDirection
from ..core.saes import hook_of, open_sae
from ..core.settings import Setting
from ..core.sites import Stage, parse_site
from ..naming.source import Described, read_descriptions
from .lora import Part, open_lora

_DIRECTIONS = 5
_DRAWS = 8
_LEAST = 1e-6


def pull_back(
    lora: Path,
    setting: Setting,
    count: int,
    descriptions: str | Path | None,
    seed: int,
    out: Reporter,
) -> PulledRecord:
    """What a LoRA reads and writes, by the features of the setting's SAE.

    Args:
        lora: its directory, as PEFT saves it.
        setting: names model and SAE.
        count: how many features are named on each side.
        descriptions: of the features.
        seed: of the random changes that shares are compared with.
        out: shows what of the descriptions is of no use.

    Raises:
        InputError: no LoRA, one of another model, or an SAE that does not read the residual stream.

    """
    opened = open_lora(lora, setting)
    sae, fingerprint = open_sae(setting.sae, setting.folder)
    hook = hook_of(sae, setting.sae)
    site = parse_site(hook, opened.n_layers)
    if site.stage != Stage.ENTRY:
        raise InputError(
            f"SAE {setting.sae.label} stands at {hook}; expected one of the residual stream "
            "(hook_resid_pre or hook_resid_post), which LoRAs write to and read; use one"
        )
    decoder, encoder = sae.W_dec.detach().float(), sae.W_enc.detach().float()
    kinds: Mapping[Literal["writes", "reads"], list[Part]] = {
        "writes": [p for p in opened.parts if p.writes and p.layer < site.layer],
        "reads": [p for p in opened.parts if not p.writes and p.layer >= site.layer],
    }
    sides = [
        _side(kind, parts, decoder, encoder, count, seed) for kind, parts in kinds.items() if parts
    ]
    if descriptions is not None:
        wanted = sorted({each.feature for side in sides for each in side.features})
        names = read_descriptions(
            descriptions, Described(setting.sae, len(decoder), fingerprint), wanted, out
        )
        sides = [_named(side, names) for side in sides]
    seen = {part.name for parts in kinds.values() for part in parts}
    return PulledRecord(
        lora=str(lora),
        setting=setting.name,
        sae=setting.sae.label,
        hook=hook,
        sides=sides,
        elsewhere=[part.name for part in opened.parts if part.name not in seen],
        unknown=opened.unknown,
    )


def _named(side: PulledSide, names: Mapping[int, str]) -> PulledSide:
    features = [
        each.model_copy(update={"description": names.get(each.feature)}) for each in side.features
    ]
    return side.model_copy(update={"features": features})


def _side(
    kind: Literal["writes", "reads"],
    parts: list[Part],
    decoder: Tensor,
    encoder: Tensor,
    count: int,
    seed: int,
) -> PulledSide:
    factor = torch.cat([part.factor for part in parts], dim=1)
    total = float(factor.square().sum())
    if total == 0:
        return PulledSide(
            kind=kind,
            modules=[part.name for part in parts],
            share=0.0,
            random_share=0.0,
            features=[],
            directions=[],
        )
    units = torch.nn.functional.normalize(decoder, dim=1)
    chosen, shares = matching_pursuit(units, factor, count)
    alone = (units[chosen] @ factor).square().sum(dim=1) / total
    through = (encoder.T @ factor).norm(dim=1)
    against = through / through.mean().clamp(min=1e-30)
    left, sizes, _ = torch.linalg.svd(factor, full_matrices=False)
    cosines = (units @ left[:, :_DIRECTIONS]).abs()
    return PulledSide(
        kind=kind,
        modules=[part.name for part in parts],
        share=sum(shares),
        random_share=_random_share(units, factor, len(chosen), seed),
        features=[
            PulledFeature(
                feature=feature,
                share=share,
                share_alone=float(alone[i]),
                encoder=float(against[feature]),
            )
            for i, (feature, share) in enumerate(zip(chosen, shares, strict=True))
        ],
        directions=[
            SingularDirection(
                share=float(sizes[i].square() / total),
                feature=int(cosines[:, i].argmax()),
                cosine=float(cosines[:, i].max()),
            )
            for i in range(min(_DIRECTIONS, len(sizes)))
            if sizes[i].square() > 1e-9 * total
        ],
    )


def matching_pursuit(
    units: Float[Tensor, "feature d"], factor: Float[Tensor, "d rank"], count: int
) -> tuple[list[int], list[float]]:
    """Features one by one, each the one whose direction adds most to what those before it explain, and
    the share of ``factor`` that it adds.

    Args:
        units: decoder directions of length 1.
        factor: what is explained.
        count: how many; fewer where nothing is left.

    """
    total = float(factor.square().sum())
    seen, free = units @ factor, torch.ones(len(units), device=units.device)
    chosen: list[int] = []
    shares: list[float] = []
    basis = units.new_zeros(units.shape[1], 0)
    for _ in range(min(count, *units.shape)):
        gains = seen.square().sum(dim=1) / free.clamp(min=_LEAST)
        gains[free < _LEAST] = 0.0
        best = int(gains.argmax())
        if float(gains[best]) <= 1e-9 * total:
            break
        direction = units[best] - basis @ (basis.T @ units[best])
        direction = direction / direction.norm()
        along = units @ direction
        seen -= along[:, None] * (direction @ factor)
        free -= along.square()
        basis = torch.cat([basis, direction[:, None]], dim=1)
        chosen.append(best)
        shares.append(float(gains[best]) / total)
    return chosen, shares


def _random_share(units: Tensor, factor: Tensor, count: int, seed: int) -> float:
    """What so many features explain of random directions with the sizes of ``factor``."""
    sizes = torch.linalg.svdvals(factor)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(_DRAWS):
        drawn = torch.randn(len(factor), len(sizes), generator=generator)
        turned = torch.linalg.qr(drawn).Q[:, : len(sizes)].to(factor.device) * sizes
        found.append(sum(matching_pursuit(units, turned, count)[1]))
    return sum(found) / _DRAWS
