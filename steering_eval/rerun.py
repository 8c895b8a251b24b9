"""The plain forward pass: the whole model once more for every steered final token.

Exact for every model that TransformerLens' bridge runs, and slow. It stands in where the resumed
pass does not know the model's family, and checks it where it does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.models import LanguageModel
from ..core.sites import Site

_TOKENS_AT_ONCE = 1 << 12
_NORMALISED = "unembed.hook_in"


@dataclass(frozen=True)
class UntouchedPrefix:
    """Some contexts as tokens, and what stands at the steered site at their final tokens."""

    forward: "FullForward"
    final: Float[Tensor, "context width"]
    tokens: Int[Tensor, "context token"]

    def of(self, contexts: slice) -> "UntouchedPrefix":
        """The part of some consecutive contexts."""
        return UntouchedPrefix(self.forward, self.final[contexts], self.tokens[contexts])

    def resume(
        self, steered: Float[Tensor, "context query width"], tap: Site
    ) -> tuple[Float[Tensor, "context query d"], Float[Tensor, "context query tap"]]:
        """The final norm's output and what stands at ``tap``, query by query."""
        outputs, taps, _ = self.forward.run(steered, self, tap)
        return outputs, taps


class FullForward:
    """The same answers as :class:`resume.ResumedForward` gives, by full forward passes."""

    def __init__(self, model: LanguageModel, site: Site) -> None:
        self._model = model
        self._site = site

    def freeze(self, tokens: Int[Tensor, "context token"]) -> UntouchedPrefix:
        """Read what stands at the site."""
        (values,) = self._model.read(tokens, [self._site])
        return UntouchedPrefix(self, values[:, -1], tokens)

    @torch.no_grad()
    def run(
        self, steered: Float[Tensor, "context query width"], clean: UntouchedPrefix, tap: Site
    ) -> tuple[
        Float[Tensor, "context query d"],
        Float[Tensor, "context query tap"],
        Float[Tensor, "context query vocab"],
    ]:
        """Like :meth:`UntouchedPrefix.resume`, and the model's own logits."""
        n_contexts, n_queries, width = steered.shape
        tokens = clean.tokens.to(steered.device).repeat_interleave(n_queries, dim=0)
        pushes = (steered - clean.final[:, None]).reshape(-1, width)
        at_once = max(1, _TOKENS_AT_ONCE // tokens.shape[1])
        batches = [
            self._run(some, push, tap)
            for some, push in zip(tokens.split(at_once), pushes.split(at_once), strict=True)
        ]
        outputs, taps, logits = (
            torch.cat(parts).view(n_contexts, n_queries, -1) for parts in zip(*batches, strict=True)
        )
        return outputs, taps, logits

    def _run(
        self, tokens: Int[Tensor, "query token"], push: Float[Tensor, "query width"], tap: Site
    ) -> tuple[Float[Tensor, "query d"], Float[Tensor, "query tap"], Float[Tensor, "query vocab"]]:
        seen: dict[str, Tensor] = {}

        def steer(values: Tensor, hook: object) -> Tensor:
            changed = values.clone()
            changed[:, -1] += push.view_as(changed[:, -1])
            return changed

        def keep_as(name: str) -> Callable[[Tensor, object], None]:
            def keep(values: Tensor, hook: object) -> None:
                seen[name] = values[:, -1].flatten(1)

            return keep

        reading = self._model.reading_hook(tap)
        writing = self._model.writing_hook(self._site)
        # The steering hook stands first: where both share a hook, the tap sees the steered value.
        hooks = [(writing, steer), (reading, keep_as(reading)), (_NORMALISED, keep_as(_NORMALISED))]
        logits = self._model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)
        return seen[_NORMALISED], seen[reading], logits[:, -1]
