"""Linear response at several strengths of mode ``add``, for what is not a power of the strength: the
collateral count; and what chance does with the contexts that labels are taken in.

Ours; not among the paper's statistics. docs/protocol.md, Dose forecast.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..steering_eval import collateral
from ..steering_eval.collateral import CollateralReader
from ..steering_eval.derivative import Jacobians
from ..steering_eval.stability import measure_stability
from ..steering_eval.vocabulary import VocabularyReader
from .response import CappedLogits, LinearLogits, LogitResponse

COUNT = collateral.PRIMARY
_COLUMN = collateral.COLUMNS.index(COUNT)
_ELEMENTS = 1 << 24
_BLOCK = 4
"""Contexts drawn together: neighbours are often cut from one text."""

Array = Float[np.ndarray, "..."]


def count_by_dose(
    jacobians: Sequence[Jacobians],
    directions: Float[Tensor, "feature width"],
    coefficients: Float[np.ndarray, " dose"],
    reader: CollateralReader,
    progress: Callable[[int], object] = lambda done: None,
) -> Float[np.ndarray, "feature dose"]:
    """First-order forecasts of ``collateral_count_0.05`` of every feature at several coefficients.

    Args:
        jacobians: of each context.
        directions: what is added for each feature, the decoder rows.
        coefficients: multiples of it.
        reader: reads what stands at the tap.
        progress: called with the number of contexts done.

    Source: docs/protocol.md, Dose forecast.

    """
    total = np.zeros((len(directions), len(coefficients)))
    for each in jacobians:
        total += _counts(each, directions, coefficients, reader)
        progress(1)
    return total / len(jacobians)


def measured_by_context(
    jacobians: Sequence[Jacobians],
    directions: Float[Tensor, "feature width"],
    coefficients: Float[np.ndarray, " dose"],
    reader: CollateralReader,
    vocabulary: VocabularyReader,
) -> tuple[
    Float[np.ndarray, "feature context context"],
    Float[np.ndarray, "feature context"],
    Float[np.ndarray, "feature context dose"],
]:
    """First-order logit changes D D^T and KL of a unit push, and collateral counts, by context."""
    logits: LogitResponse = (LinearLogits if vocabulary.linear else CappedLogits)(
        jacobians, vocabulary
    )
    some = directions.to(jacobians[0].to_output)
    ones = some.new_ones(len(some), len(jacobians))
    gram = logits.measure(some, lambda _: ones).gram
    counts = [_counts(each, directions, coefficients, reader) for each in jacobians]
    return (
        gram.cpu().double().numpy(),
        logits.curvatures(some).cpu().double().numpy(),
        np.stack(counts, axis=1),
    )


def resample_contexts(
    gram: Float[np.ndarray, "feature context context"],
    divergence: Float[np.ndarray, "feature context"],
    counts: Float[np.ndarray, "feature context dose"],
    coefficients: Float[np.ndarray, " dose"],
    seed: int,
    resamples: int = 100,
) -> dict[str, Float[np.ndarray, "resample feature dose"]]:
    """First-order forecasts of the labels of a dose forecast in contexts drawn with replacement, by
    label: what the choice of contexts does to all features alike. Neighbours are drawn together.

    Source: H. R. Kuensch, Annals of Statistics 17 (1989): the bootstrap of blocks.
    """
    generator = np.random.default_rng(seed)
    size, n = np.abs(coefficients), gram.shape[1]
    found: dict[str, list[Array]] = {}
    for _ in range(resamples):
        starts = generator.integers(0, n, -(-n // _BLOCK))
        drawn = ((starts[:, None] + np.arange(_BLOCK)) % n).ravel()[:n]
        stability = measure_stability(gram[:, drawn][:, :, drawn])
        count = counts[:, drawn].mean(axis=1)
        effect = stability["effect_l2"][:, None] * size
        for name, values in (
            ("kl_clean_steered", divergence[:, drawn].mean(axis=1)[:, None] * size**2),
            ("stability_abs", np.repeat(stability["stability_abs"][:, None], len(size), axis=1)),
            (COUNT, count),
            ("collateral_per_effect", count / (effect + 1e-8)),
        ):
            found.setdefault(name, []).append(values)
    return {name: np.stack(parts) for name, parts in found.items()}


def _counts(
    jacobian: Jacobians,
    directions: Float[Tensor, "feature width"],
    coefficients: Float[np.ndarray, " dose"],
    reader: CollateralReader,
) -> Float[np.ndarray, "feature dose"]:
    """Counts in one context."""
    doses = torch.as_tensor(coefficients).to(jacobian.to_tap)
    at_once = max(1, _ELEMENTS // (len(doses) * max(reader.width, jacobian.tapped.shape[-1])))
    parts = []
    for some in directions.to(jacobian.to_tap).split(at_once):
        moved = (some @ jacobian.to_tap[0])[:, None] * doses[:, None]
        values = torch.cat([jacobian.tapped, jacobian.tapped + moved.flatten(0, 1)])[None]
        parts.append(reader.measure(values)[0, :, _COLUMN].view(len(some), len(doses)))
    counts: Array = torch.cat(parts).cpu().double().numpy()
    return counts
