"""Which of the allowed features are trained, and the beta2 that fits them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..core.progress import Reporter
from ..core.training import TrainingOptions
from .config import SaeAdapterConfig, Target
from .encoding import encode
from .examples import Examples
from .gradients import Site, TextGradients, text_gradients
from .model import load_target
from .padding import plain_row
from .relevance import LEAST, MUCH_LARGER, Rule, choose, fitting_count, scores
from .selection import LEAST_BETA2, Pass, fitting_beta2, learns_in_every_step, survey

Features = list[int] | None
"""Of an SAE; None: all of them."""


@dataclass(frozen=True)
class Chosen:
    """What a pass over the examples decided."""

    features: list[Features]
    """Of each target; may be none of one."""
    beta2: float
    never_fire: int | None = None
    """How many never fire in the examples; None where that was not counted."""
    told: str | None = None
    """How they were chosen, in words; None: all that are allowed."""
    sampled: TextGradients | None = None
    """Their gradients on the reference, tokens drawn, where these were measured."""

    def entries(self) -> dict[str, Any]:
        """The same as entries of the training's record, without the features."""
        counted = {} if self.never_fire is None else {"never_fire": self.never_fire}
        told = {} if self.told is None else {"relevance": self.told}
        return {"beta2": self.beta2} | counted | told


@dataclass(frozen=True)
class Choosing:
    """A model, and the examples and reference texts that features are chosen by."""

    network: nn.Module
    tokenizer: Any
    options: TrainingOptions
    examples: Examples
    reference: list[list[int]] | None
    """As tokens."""
    reporter: Reporter

    def choose(
        self, config: SaeAdapterConfig, counts: Sequence[int], rule: Rule, auto_beta2: bool
    ) -> Chosen:
        """The features that are trained, from a pass over the examples where they or beta2 depend on
        one. Of several targets all features compete: what each is worth is a gradient, or a gain, of the
        same loss.

        Args:
            config: of the adapter on all allowed features.
            counts: how many these are, of each target.
            rule: how they are chosen.
            auto_beta2: whether beta2 follows from how often they fire.

        """
        targets = [Target.parse(target) for target in config.targets]
        component, n_allowed = config.component, sum(counts)
        features = [target.features for target in targets]
        chooses = rule.count is not None or (rule.automatic and n_allowed >= MUCH_LARGER * LEAST)
        if not chooses and not auto_beta2:
            return Chosen(features, self.options.beta2)
        if not chooses and learns_in_every_step(component):
            return Chosen(features, LEAST_BETA2)
        seen = self._survey(config)
        shares, told, sampled = seen.step_share, None, None
        if chooses:
            gradient = seen.gradient
            if rule.by == "fisher":
                # Of pairs of answers the survey alone knows the loss, and that by scalings.
                pushes = component == "bias" and self.options.objective == "sft"
                sites = [self._site(target, config, pushes) for target in targets]
                gradient = self._gradient(sites) if pushes else gradient
                sampled = self._sampled(sites)
            count = rule.count or fitting_count(scores(gradient, sampled))
            if count is not None:
                choice = choose(gradient, sampled, count, rule.by)
                told = f"{choice.told} of {n_allowed} allowed"
                features = taken(features, counts, choice.indices)
                shares = shares[choice.indices]
                sampled = None if sampled is None else sampled.of(choice.indices)
        beta2 = fitting_beta2(shares, component) if auto_beta2 else self.options.beta2
        return Chosen(features, beta2, int((shares == 0).sum()), told, sampled)

    def _survey(self, config: SaeAdapterConfig) -> Pass:
        total = -(-len(self.examples.rows) // self.options.batch_size)
        with self.reporter.bar("examples", total) as tick:
            return survey(self.network, self.tokenizer, config, self.options, self.examples, tick)

    def _site(self, target: Target, config: SaeAdapterConfig, pushes: bool) -> Site:
        fit = load_target(target, self.network)
        return Site(fit.place, fit.part, not pushes, config.which)

    def _gradient(self, sites: Sequence[Site]) -> Any:
        """Of the loss with respect to pushes, mean over what is learned."""
        encoded = encode(self.examples.rows, self.tokenizer, self.options, self.options.max_length)
        with self.reporter.bar("gradients", len(encoded.rows)) as tick:
            found = text_gradients(self.network, sites, encoded.rows, None, tick)
        return -found.mean.numpy()

    def _sampled(self, sites: Sequence[Site]) -> TextGradients:
        rows = [plain_row(ids) for ids in self.reference or []]
        with self.reporter.bar("Fisher information", len(rows)) as tick:
            return text_gradients(self.network, sites, rows, self.options.seed, tick)


def taken(
    allowed: Sequence[Features], counts: Sequence[int], indices: NDArray[np.int64]
) -> list[Features]:
    """The features of each target that were chosen.

    Args:
        allowed: those that may be edited, of each target.
        counts: how many these are.
        indices: of the chosen ones, among those of all targets one behind the other.

    """
    found: list[Features] = []
    start = 0
    for features, count in zip(allowed, counts, strict=True):
        inside = [int(i) - start for i in indices if start <= i < start + count]
        found.append(inside if features is None else [features[i] for i in inside])
        start += count
    return found
