"""Text that a model writes while it is pushed at every token."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.contexts import first_and_last
from ..core.models import LanguageModel
from ..core.sites import Site


@dataclass(frozen=True)
class SteeredModel:
    """A model whose rows are pushed at a site, at every position but the first (BOS)."""

    model: LanguageModel
    site: Site

    @torch.no_grad()
    def write(
        self,
        prompts: Int[Tensor, "row token"],
        pushes: Float[Tensor, "row width"],
        n_tokens: int,
        draw: Callable[[int, int], Float[Tensor, "row vocab"]],
        temperature: float = 1.0,
    ) -> Int[Tensor, "row written"]:
        """Sample continuations of exactly so many tokens; EOS is never drawn.

        A token is the largest of logits / temperature + Gumbel noise, which is a draw from their softmax
        (Maddison, Tarlow and Minka 2014, section 2). Rows of equal noise and equal logits go on alike,
        so steered and unsteered texts differ by the push alone.

        Args:
            prompts: token ids with BOS in front.
            pushes: what is added at the site for each row.
            n_tokens: length of the continuations.
            draw: Gumbel noise of a step, from 0, for a vocabulary of a size.
            temperature: above 0.

        """
        from transformers import GenerationConfig, LogitsProcessorList

        _, end = first_and_last(self.model.tokenizer)
        config = GenerationConfig(
            max_new_tokens=n_tokens,
            min_new_tokens=n_tokens,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        noise = LogitsProcessorList([_Noise(draw, temperature, prompts.shape[1])])
        prompts = prompts.to(self.model.device)
        with self._pushed(pushes):
            written: Tensor = self.model.bridge.original_model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                generation_config=config,
                logits_processor=noise,
            )
        return written[:, prompts.shape[1] :]

    @torch.no_grad()
    def log_probabilities(
        self,
        tokens: Int[Tensor, "row token"],
        pushes: Float[Tensor, "row width"] | None,
        n_last: int,
    ) -> Float[Tensor, "row last vocab"]:
        """Ln p of every token of the vocabulary at each of the last ``n_last`` tokens, given those before
        it; ``pushes`` None: unsteered.
        """
        tokens = tokens.to(self.model.device)
        with self._pushed(pushes):
            logits = self.model.bridge.original_model(tokens, use_cache=False).logits
        wanted: Tensor = logits[:, -n_last - 1 : -1]
        return wanted.to(torch.promote_types(wanted.dtype, torch.float32)).log_softmax(dim=-1)

    @contextmanager
    def _pushed(self, pushes: Tensor | None) -> Iterator[None]:
        if pushes is None:
            yield
            return
        rows = pushes.to(self.model.device, self.model.dtype)[:, None]
        begun = False

        def steer(values: Tensor, hook: object) -> Tensor:
            nonlocal begun
            start, begun = int(not begun), True
            changed = values.clone()
            later = changed[:, start:]
            later += rows.expand(-1, later.shape[1], -1).reshape(later.shape)
            return changed

        with self.model.bridge.hooks(fwd_hooks=[(self.model.writing_hook(self.site), steer)]):
            yield


class _Noise:
    """A logits processor of Hugging Face's ``generate``."""

    def __init__(self, draw: Callable[[int, int], Tensor], temperature: float, start: int) -> None:
        self._draw, self._temperature, self._start = draw, temperature, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn = self._draw(input_ids.shape[1] - self._start, scores.shape[1])
        return scores.float() / self._temperature + drawn.to(scores.device)
