"""Scores of features on one neutral prompt: what steering makes the model say next."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from ..core.models import LanguageModel
from ..core.saes import Dictionary
from ..core.sites import Site
from .forward import ForwardPass, push_queries
from .vocabulary import VocabularyReader

PROMPT = "From my experience,"
"""The neutral prompt of arXiv:2505.20063's code and of arXiv:2510.03659, appendix D."""
PROMPT_STRENGTH = 10.0
PROMPT_COLUMNS = ("output_score", "delta_token_confidence")
"""Columns of :meth:`PromptScorer.score`."""
_QUERIES = 64


@dataclass(frozen=True)
class PromptScorer:
    """Scores features by the next-token distribution after a prompt."""

    model: LanguageModel
    forward: ForwardPass
    primary: Dictionary
    tap: Site
    vocabulary: VocabularyReader

    @torch.no_grad()
    def score(
        self, features: NDArray[np.int64], prompt: Int[Tensor, "1 token"], strength: float
    ) -> pd.DataFrame:
        """``output_score`` and ``delta_token_confidence`` of features, on one neutral prompt.

        The feature's direction, ``strength`` times the largest activation of any feature at the
        prompt's last token, is added there. With p' the next-token distribution then and p without
        it, l the 20 tokens that the direction itself promotes (its image under the final norm and
        the unembedding), and r(t) the rank of t under p' (0 is the likeliest): output_score =
        (1 - r/V) p'(t*), where t* in l has the best rank (on a neutral prompt the same without
        steering is next to nothing, and is not subtracted); delta_token_confidence = ln max p -
        ln max p' (negative: the steered distribution is sharper).

        Source: output score, arXiv:2505.20063, section 3.2; delta token confidence,
        arXiv:2510.03659, section 4.1 and appendix D (k = 1), with the other features left as they
        are.
        """
        prefix = self.forward.freeze(prompt)
        largest = float(self.primary.encode(self._read(prefix.final, prompt)).max())
        scores = []
        for part in np.array_split(features, max(1, -(-len(features) // _QUERIES))):
            directions = self.primary.decoder[torch.as_tensor(part)]
            queries = push_queries(prefix.final, (strength * largest * directions)[None])
            output, _ = prefix.resume(queries, self.tap)
            log_p = self.vocabulary.logits(output[0]).log_softmax(dim=-1)
            promoted = self.model.promoted(self.model.to_stream(directions, self.primary.site))
            best = log_p[1:].gather(1, promoted).amax(dim=1)
            rank = (log_p[1:] > best[:, None]).sum(dim=1)
            score = (1 - rank / log_p.shape[1]) * best.exp()
            peak = log_p.amax(dim=1)
            scores.append(torch.stack([score, peak[0] - peak[1:]], dim=1).double().cpu())
        table = pd.DataFrame(torch.cat(scores).numpy(), columns=list(PROMPT_COLUMNS))
        table.insert(0, "feature", features)
        return table

    def _read(self, final: Tensor, prompt: Int[Tensor, "1 token"]) -> Tensor:
        """What the steered dictionary reads at the prompt's last token."""
        if self.primary.source == self.primary.site:
            return final
        (values,) = self.model.read(prompt, [self.primary.source])
        return values[:, -1]
