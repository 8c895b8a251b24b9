"""The evaluator's self-check: a few pairs steered fast and by full forward passes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.models import LanguageModel
from ..core.sites import Site
from .choice import Plan
from .forward import ForwardPass, push_queries
from .rerun import FullForward
from .vocabulary import VocabularyReader

_SMALLEST = 1e-12


@dataclass(frozen=True)
class PassComparison:
    """Compares a forward pass with the full one, at a tap and in the model's own logits."""

    model: LanguageModel
    fast: ForwardPass
    full: FullForward
    tap: Site
    vocabulary: VocabularyReader

    @torch.no_grad()
    def largest_difference(
        self,
        plan: Plan,
        contexts: Int[Tensor, "context token"],
        pushes: Float[Tensor, "feature width"],
        count: int,
    ) -> float:
        """Over ``count`` pairs, evenly spread over the plan: the largest difference of fast and
        full, relative to the largest change; NaN where one is no number.

        Args:
            plan: which features are steered in which contexts.
            contexts: token ids of all contexts.
            pushes: what is added for each feature of the plan.
            count: how many pairs.

        """
        chosen = np.unique(np.linspace(0, len(plan.features) - 1, count).astype(int))
        differences = [0.0]
        for index in chosen:
            tokens = contexts[[plan.union[index][0]]]
            differences += self._differences(tokens, pushes[int(index)])
        return float(np.max(differences))

    def _differences(
        self, tokens: Int[Tensor, "1 token"], push: Float[Tensor, " width"]
    ) -> list[float]:
        """Of the logits, and of what stands at the tap.

        The push is made as long as what it is added to at least: a small change would drown in the
        rounding of both passes, the more so the larger the activations are.
        """
        frozen, clean = self.fast.freeze(tokens), self.full.freeze(tokens)
        length = push.norm().clamp_min(_SMALLEST)
        push = push * (clean.final.norm() / length).clamp_min(1.0)
        output, tapped = frozen.resume(push_queries(frozen.final, push[None, None]), self.tap)
        fast = self.vocabulary.logits(output)
        _, full_tapped, full = self.full.run(
            push_queries(clean.final, push[None, None]), clean, self.tap
        )
        full = full.to(fast.dtype)
        if self.model.vocabulary_centred:
            full = full - full.mean(dim=-1, keepdim=True)
        return [
            _relative_difference(fast[0], full[0]),
            _relative_difference(tapped[0].float(), full_tapped[0].float()),
        ]


def _relative_difference(ours: Float[Tensor, "2 entry"], theirs: Float[Tensor, "2 entry"]) -> float:
    """Of two changes, each from row 0 to row 1, relative to the largest entry of the second."""
    change = theirs[1] - theirs[0]
    difference = (ours[1] - ours[0] - change).abs().max()
    return float(difference / change.abs().max().clamp_min(_SMALLEST))
