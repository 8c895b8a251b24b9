"""Linear response: what steering a feature does to first order, without steering it.

For a push delta d_f at a context with the Jacobians J (final norm's output) and J' (what stands at the
tap): the logits move by D = delta d_f J W, times the derivative of the soft-cap at the clean logits
where there is one, and the tap by delta d_f J', which the downstream SAE's own encoder turns into a
change U of the panel. From D and U come the columns of the labels, each under its label's name.

Ours; not among the paper's statistics. docs/protocol.md, Linear response.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_GRAMS_AT_ONCE = 128

CURVATURE = f"{PREFIX}curvature"
"""Column: KL(clean || steered) of a push by the coefficient v is v^2 times it, to second order."""
Deltas = Callable[[slice, Float[np.ndarray, " feature"]], Float[Tensor, "feature context"]]
"""The multiple of its direction that each of some features, with these curvatures, gets in each
context."""


@dataclass(frozen=True)
class MeasuredLogits:
    """First-order changes D of the logits, of some features."""

    pushes: Float[Tensor, "feature context"]
    """The multiple of its direction that each feature got in each context."""
    gram: Float[Tensor, "feature context context"]
    """D D^T of each feature."""
    divergence: Float[Tensor, " feature"]
    """Mean over contexts of KL(clean || steered) = 1/2 D^T (diag p - p p^T) D, p being the clean
    next-token distribution."""
    curvature: Float[Tensor, " feature"]
    """The same for a push of 1 in every context."""
    tokens: Int[Tensor, "feature 2 token"]
    """Those with the largest, and with the smallest mean over contexts of D / push, ``TOP_TOKENS`` of
    each."""


Pushes = Callable[[Float[np.ndarray, " feature"]], Float[Tensor, "feature context"]]
"""The multiple of its direction that each feature gets in each context, given their curvatures."""


class LogitResponse(Protocol):
    """First-order changes of the logits."""

    @property
    def elements(self) -> int:
        """How many numbers are held at once for each feature."""
        ...

    def measure(self, directions: Float[Tensor, "feature width"], pushes: Pushes) -> MeasuredLogits:
        """Push along some directions."""
        ...

    def curvatures(
        self, directions: Float[Tensor, "feature width"]
    ) -> Float[Tensor, "feature context"]:
        """KL(clean || steered) of a push of 1, by context."""
        ...


class LinearLogits:
    """Where logits are linear in the final norm's output, a change is known by its image under the
    root of W W^T: as long, in the same angles, and only as wide as the model.
    """

    def __init__(self, jacobians: Sequence[Jacobians], vocabulary: VocabularyReader) -> None:
        gram = vocabulary.unembedding_gram().double().cpu()
        values, vectors = torch.linalg.eigh(gram)
        root = vectors * values.clamp_min(0.0).sqrt()
        root = root.to(jacobians[0].to_output)
        self._vocabulary = vocabulary
        self._images = _Images([each.to_output[0] @ root for each in jacobians])
        self._curvatures = torch.stack(
            [
                each.to_output[0] @ vocabulary.fisher(each.output[0]) @ each.to_output[0].T
                for each in jacobians
            ]
        )
        self._mean_curvature = self._curvatures.mean(dim=0)
        self._mean = torch.stack([each.to_output[0] for each in jacobians]).mean(dim=0)

    @property
    def elements(self) -> int:
        """See :attr:`LogitResponse.elements`."""
        return max(self._images.size, _VOCABULARY_BLOCK)

    def measure(self, directions: Float[Tensor, "feature width"], pushes: Pushes) -> MeasuredLogits:
        """See :meth:`LogitResponse.measure`."""
        curvature = _along(directions, self._mean_curvature) / 2
        deltas = _pushed(pushes, curvature)
        images = self._images.of(directions)
        gram = (images @ images.transpose(1, 2)) * deltas[:, :, None] * deltas[:, None]
        mean, extremes = directions @ self._mean, _Extremes()
        for columns in _blocks(self._vocabulary.size, _VOCABULARY_BLOCK):
            extremes.add(self._vocabulary.change(mean, columns), columns.start)
        divergence = self._divergence(directions, deltas, curvature)
        return MeasuredLogits(deltas, gram, divergence, curvature, extremes.tokens())

    def _divergence(
        self,
        directions: Float[Tensor, "feature width"],
        deltas: Float[Tensor, "feature context"],
        curvature: Float[Tensor, " feature"],
    ) -> Float[Tensor, " feature"]:
        """Features with one push in all contexts need the mean curvature alone."""
        even = (deltas == deltas[:, :1]).all(dim=1)
        found = deltas[:, 0].square() * curvature
        curvatures = self.curvatures(directions[~even])
        found[~even] = (curvatures * deltas[~even].square()).mean(dim=1)
        return found

    def curvatures(
        self, directions: Float[Tensor, "feature width"]
    ) -> Float[Tensor, "feature context"]:
        """See :meth:`LogitResponse.curvatures`."""
        return torch.stack([_along(directions, each) for each in self._curvatures], dim=1) / 2


class CappedLogits:
    """Where logits are soft-capped, D is summed up block of vocabulary by block."""

    def __init__(self, jacobians: Sequence[Jacobians], vocabulary: VocabularyReader) -> None:
        self._vocabulary = vocabulary
        self._images = _Images([each.to_output[0] for each in jacobians])
        logits = vocabulary.logits(torch.cat([each.output for each in jacobians]))
        self._shares = logits.softmax(dim=-1)
        self._slopes = vocabulary.slopes(logits)

    @property
    def elements(self) -> int:
        """See :attr:`LogitResponse.elements`."""
        at_once = min(_VOCABULARY_BLOCK, self._slopes.shape[1])
        return max(self._images.size, len(self._slopes) * at_once)

    def measure(self, directions: Float[Tensor, "feature width"], pushes: Pushes) -> MeasuredLogits:
        """See :meth:`LogitResponse.measure`."""
        extremes = _Extremes()
        gram, curvatures = self._add_up(directions, extremes)
        curvature = curvatures.mean(dim=1)
        deltas = _pushed(pushes, curvature)
        gram *= deltas[:, :, None] * deltas[:, None]
        divergence = (curvatures * deltas.square()).mean(dim=1)
        return MeasuredLogits(deltas, gram, divergence, curvature, extremes.tokens())

    def curvatures(
        self, directions: Float[Tensor, "feature width"]
    ) -> Float[Tensor, "feature context"]:
        """See :meth:`LogitResponse.curvatures`."""
        return self._add_up(directions, _Extremes())[1]

    def _add_up(
        self, directions: Float[Tensor, "feature width"], extremes: "_Extremes"
    ) -> tuple[Float[Tensor, "feature context context"], Float[Tensor, "feature context"]]:
        """D D^T and KL of a push of 1, by context; ``extremes`` takes note of the mean D."""
        moved = self._images.of(directions)
        n_contexts = moved.shape[1]
        gram = moved.new_zeros(len(moved), n_contexts, n_contexts)
        mean_change = moved.new_zeros(len(moved), n_contexts)
        mean_square = torch.zeros_like(mean_change)
        for columns in _blocks(self._slopes.shape[1], _VOCABULARY_BLOCK):
            change = self._vocabulary.change(moved, columns).mul_(self._slopes[:, columns])
            extremes.add(change.mean(dim=1), columns.start)
            gram += change @ change.transpose(1, 2)
            weighted = change * self._shares[:, columns]
            mean_change += weighted.sum(dim=-1)
            mean_square += weighted.mul_(change).sum(dim=-1)
        return gram, (mean_square - mean_change.square()).clamp_min(0.0) / 2


class _Images:
    """Directions times a matrix for each context, in memory that is used again and again."""

    def __init__(self, matrices: Sequence[Float[Tensor, "width d"]]) -> None:
        self._matrices = matrices
        self.size = len(matrices) * matrices[0].shape[1]
        self._memory = matrices[0].new_empty(0)

    def of(self, directions: Float[Tensor, "feature width"]) -> Float[Tensor, "feature context d"]:
        needed = len(directions) * self.size
        if len(self._memory) < needed:
            self._memory = directions.new_empty(needed)
        images = self._memory[:needed].view(len(directions), len(self._matrices), -1)
        for index, matrix in enumerate(self._matrices):
            torch.mm(directions, matrix, out=images[:, index])
        return images


class _Extremes:
    """The tokens with the largest and smallest changes, of blocks of vocabulary one by one."""

    def __init__(self) -> None:
        self._found: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}

    def add(self, change: Float[Tensor, "feature token"], first: int) -> None:
        """Take note of the changes of the tokens from ``first``."""
        for largest, found in self._found.items():
            values, places = change.topk(min(TOP_TOKENS, change.shape[1]), dim=1, largest=largest)
            found.append((values, places + first))

    def tokens(self) -> Int[Tensor, "feature 2 token"]:
        """The most extreme first."""
        chosen = []
        for largest, found in self._found.items():
            values, tokens = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
            order = values.topk(min(TOP_TOKENS, values.shape[1]), dim=1, largest=largest).indices
            chosen.append(tokens.gather(1, order))
        return torch.stack(chosen, dim=1)


def _blocks(size: int, most: int) -> Iterator[slice]:
    return (slice(start, min(start + most, size)) for start in range(0, size, most))


def _pushed(
    pushes: Pushes, curvature: Float[Tensor, " feature"]
) -> Float[Tensor, "feature context"]:
    return pushes(curvature.cpu().double().numpy()).to(curvature)


def _along(
    directions: Float[Tensor, "feature width"], curvature: Float[Tensor, "width width"]
) -> Float[Tensor, " feature"]:
    return ((directions @ curvature) * directions).sum(dim=1).clamp_min(0.0)


def measure_response(
    jacobians: Sequence[Jacobians],
    directions: Float[Tensor, "feature width"],
    deltas: Deltas,
    reader: CollateralReader,
    vocabulary: VocabularyReader,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[dict[str, Float[np.ndarray, " feature"]], Int[Tensor, "feature 2 token"]]:
    """First-order forecasts of the labels of every feature, in blocks of features: large ones for the
    panel, and within these as many at once as fit for the logits.

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
    tokens: list[Tensor] = []
    columns: dict[str, list[np.ndarray]] = {}
    elements = _ELEMENTS.get(directions.device.type, _ELEMENTS_DEFAULT)
    at_once = max(1, elements // max(logits.elements, reader.width))
    for block in _blocks(len(directions), max(1, elements // reader.width)):
        some, pushes = directions[block].to(jacobians[0].to_output), []
        for part in _blocks(len(some), at_once):
            place = slice(block.start + part.start, block.start + part.stop)
            measured = logits.measure(some[part], functools.partial(deltas, place))
            tokens.append(measured.tokens.cpu())
            pushes.append(measured.pushes)
            _append(columns, _of_logits(measured))
            progress(len(measured.pushes))
        spread = _spread(jacobians, some, torch.cat(pushes), reader).cpu().double().numpy()
        _append(columns, {name: spread[:, i] for i, name in enumerate(collateral.COLUMNS)})
    found = {name: np.concatenate(parts) for name, parts in columns.items()}
    effect = found["effect_l2"] + _EPS
    found["collateral_per_effect"] = found[collateral.PRIMARY] / effect
    found["collateral_relative_per_effect"] = found[collateral.RELATIVE] / effect
    return {f"{PREFIX}{name}": values for name, values in found.items()}, torch.cat(tokens)


def _append(
    columns: dict[str, list[np.ndarray]], found: Mapping[str, Float[np.ndarray, " feature"]]
) -> None:
    for name, values in found.items():
        columns.setdefault(name, []).append(values)


def _of_logits(logits: MeasuredLogits) -> dict[str, Float[np.ndarray, " feature"]]:
    # Part by part: several arrays as large as all Gram matrices do not fit a processor's cache.
    parts = [
        measure_stability(gram.cpu().double().numpy()) for gram in logits.gram.split(_GRAMS_AT_ONCE)
    ]
    stability = {name: np.concatenate([part[name] for part in parts]) for name in STABILITY}
    numbers = {"curvature": logits.curvature, "kl_clean_steered": logits.divergence}
    return stability | {name: values.cpu().double().numpy() for name, values in numbers.items()}


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
