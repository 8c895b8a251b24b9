"""Linear response: what steering a feature does to first order, without steering it.

For a push delta d_f at a context with the Jacobians J (final norm's output) and J' (what stands at the
tap): the logits move by D = delta d_f J W, times the derivative of the soft-cap at the clean logits
where there is one, and the tap by delta d_f J', which the downstream SAE's own encoder turns into a
change U of the panel. From D and U come the columns of the labels, each under its label's name.

Ours; not among the paper's statistics. docs/protocol.md, Linear response.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..steering_eval import collateral
from ..steering_eval.collateral import CollateralReader
from ..steering_eval.derivative import Jacobians
from ..steering_eval.stability import measure_stability
from ..steering_eval.vocabulary import VocabularyReader

PREFIX = "response_"
"""A column ``response_X`` is the first-order forecast of the label X."""
STABILITY = ("stability_abs", "stability_signed", "effect_l2", "effect_cv", "effect_pc1_ratio")
TOP_TOKENS = 10
_EPS = 1e-8
_ELEMENTS = {"cpu": 1 << 24}
_ELEMENTS_DEFAULT = 1 << 27
_VOCABULARY_BLOCK = 4096

CURVATURE = "response_curvature"
"""Column: KL(clean || steered) of a push by the coefficient v is v^2 times it, to second order."""
Deltas = Callable[[slice, Float[np.ndarray, " feature"]], Float[Tensor, "feature context"]]
"""The multiple of its direction that each of some features, with these curvatures, gets in each
context."""


class LogitResponse(Protocol):
    """First-order changes D of the logits."""

    def measure(
        self, directions: Float[Tensor, "feature width"], deltas: Float[Tensor, "feature context"]
    ) -> tuple[
        Float[Tensor, "feature context context"],
        Float[Tensor, "feature context"],
        Float[Tensor, "feature vocab"],
    ]:
        """D D^T of each feature; KL(clean || steered) = 1/2 D^T (diag p - p p^T) D of each context, p
        being the clean next-token distribution; and the mean over contexts of D / delta.
        """
        ...


class LinearLogits:
    """Where logits are linear in the final norm's output, a change is known by its image under the
    root of W W^T: as long, in the same angles, and only as wide as the model.
    """

    def __init__(self, jacobians: Sequence[Jacobians], vocabulary: VocabularyReader) -> None:
        gram = vocabulary.unembedding_gram().double().cpu()
        values, vectors = torch.linalg.eigh(gram)
        root = vectors * values.clamp_min(0.0).sqrt()
        first = jacobians[0].to_output
        root = root.to(first)
        self._vocabulary = vocabulary
        self._to_change = torch.stack([each.to_output[0] @ root for each in jacobians])
        self._curvature = torch.stack(
            [
                each.to_output[0] @ vocabulary.fisher(each.output[0]) @ each.to_output[0].T
                for each in jacobians
            ]
        )
        self._mean = torch.stack([each.to_output[0] for each in jacobians]).mean(dim=0)

    def measure(
        self, directions: Float[Tensor, "feature width"], deltas: Float[Tensor, "feature context"]
    ) -> tuple[
        Float[Tensor, "feature context context"],
        Float[Tensor, "feature context"],
        Float[Tensor, "feature vocab"],
    ]:
        """See :meth:`LogitResponse.measure`."""
        change = torch.einsum("fw,cwd->fcd", directions, self._to_change) * deltas[..., None]
        curved = torch.einsum("fw,cwv->fcv", directions, self._curvature)
        divergence = (curved * directions[:, None]).sum(dim=-1) * deltas.square() / 2
        mean = self._vocabulary.change(directions @ self._mean)
        return change @ change.transpose(1, 2), divergence.clamp_min(0.0), mean


class CappedLogits:
    """Where logits are soft-capped, D is summed up block of vocabulary by block."""

    def __init__(self, jacobians: Sequence[Jacobians], vocabulary: VocabularyReader) -> None:
        self._vocabulary = vocabulary
        self._to_output = torch.stack([each.to_output[0] for each in jacobians])
        logits = vocabulary.logits(torch.cat([each.output for each in jacobians]))
        self._shares = logits.softmax(dim=-1)
        self._slopes = vocabulary.slopes(logits)

    def measure(
        self, directions: Float[Tensor, "feature width"], deltas: Float[Tensor, "feature context"]
    ) -> tuple[
        Float[Tensor, "feature context context"],
        Float[Tensor, "feature context"],
        Float[Tensor, "feature vocab"],
    ]:
        """See :meth:`LogitResponse.measure`."""
        moved = torch.einsum("fw,cwd->fcd", directions, self._to_output)
        n = self._slopes.shape[1]
        gram = moved.new_zeros(*deltas.shape, deltas.shape[1])
        mean_change, mean_square = torch.zeros_like(deltas), torch.zeros_like(deltas)
        means = moved.new_empty(len(moved), n)
        for start in range(0, n, _VOCABULARY_BLOCK):
            columns = slice(start, min(start + _VOCABULARY_BLOCK, n))
            change = self._vocabulary.change(moved, columns) * self._slopes[:, columns]
            means[:, columns] = change.mean(dim=1)
            change *= deltas[..., None]
            gram += change @ change.transpose(1, 2)
            weighted = change * self._shares[:, columns]
            mean_change += weighted.sum(dim=-1)
            mean_square += (weighted * change).sum(dim=-1)
        divergence = (mean_square - mean_change.square()) / 2
        return gram, divergence.clamp_min(0.0), means


def measure_response(
    jacobians: Sequence[Jacobians],
    directions: Float[Tensor, "feature width"],
    deltas: Deltas,
    reader: CollateralReader,
    vocabulary: VocabularyReader,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[dict[str, Float[np.ndarray, " feature"]], Int[Tensor, "feature 2 token"]]:
    """First-order forecasts of the labels of every feature, in blocks of features.

    Returns the columns, and the tokens that the mean response promotes most and demotes most,
    ``TOP_TOKENS`` of each, [feature, (promoted, demoted), token].

    Args:
        jacobians: of each context.
        directions: what is added for each feature, the decoder rows.
        deltas: the multiples of it, for a slice of features and their curvatures.
        reader: reads what stands at the tap.
        vocabulary: reads outputs of the final norm.
        progress: called with the number of features done.

    Source: docs/protocol.md, Linear response.

    """
    logits: LogitResponse = (LinearLogits if vocabulary.linear else CappedLogits)(
        jacobians, vocabulary
    )
    n_features, n_tokens = len(directions), min(TOP_TOKENS, vocabulary.size)
    tokens = torch.empty(n_features, 2, n_tokens, dtype=torch.long)
    columns: dict[str, list[np.ndarray]] = {}
    widest = max(vocabulary.size, len(jacobians) * jacobians[0].to_output.shape[-1], reader.width)
    elements = _ELEMENTS.get(directions.device.type, _ELEMENTS_DEFAULT)
    at_once = max(1, elements // widest)
    for start in range(0, n_features, at_once):
        block = slice(start, min(start + at_once, n_features))
        some = directions[block].to(jacobians[0].to_output)
        gram, curvatures, mean = logits.measure(some, some.new_ones(len(some), len(jacobians)))
        curvature = curvatures.cpu().double().mean(dim=1).numpy()
        columns.setdefault(CURVATURE, []).append(curvature)
        pushes = deltas(block, curvature).to(some)
        gram *= pushes[:, :, None] * pushes[:, None]
        divergence = curvatures * pushes.square()
        tokens[block, 0] = mean.topk(n_tokens, dim=1).indices.cpu()
        tokens[block, 1] = (-mean).topk(n_tokens, dim=1).indices.cpu()
        for name, values in _columns(
            gram, divergence, _spread(jacobians, some, pushes, reader)
        ).items():
            columns.setdefault(PREFIX + name, []).append(values)
        progress(len(some))
    return {name: np.concatenate(parts) for name, parts in columns.items()}, tokens


def _columns(
    gram: Float[Tensor, "feature context context"],
    divergence: Float[Tensor, "feature context"],
    spread: Float[Tensor, "feature column"],
) -> dict[str, Float[np.ndarray, " feature"]]:
    stability = measure_stability(gram.cpu().double().numpy())
    found = {name: stability[name] for name in STABILITY}
    found["kl_clean_steered"] = divergence.cpu().double().mean(dim=1).numpy()
    moved = spread.cpu().double().numpy()
    found |= {name: moved[:, i] for i, name in enumerate(collateral.COLUMNS)}
    effect = found["effect_l2"] + _EPS
    found["collateral_per_effect"] = found[collateral.PRIMARY] / effect
    found["collateral_relative_per_effect"] = found[collateral.RELATIVE] / effect
    return found


def _spread(
    jacobians: Sequence[Jacobians],
    directions: Float[Tensor, "feature width"],
    deltas: Float[Tensor, "feature context"],
    reader: CollateralReader,
) -> Float[Tensor, "feature column"]:
    """Means over contexts of what the panel sees."""
    total = directions.new_zeros(len(directions), len(collateral.COLUMNS))
    for index, each in enumerate(jacobians):
        moved = (directions @ each.to_tap[0]) * deltas[:, index, None]
        values = torch.cat([each.tapped, each.tapped + moved])[None]
        total += reader.measure(values)[0, :, : len(collateral.COLUMNS)]
    return total / len(jacobians)
