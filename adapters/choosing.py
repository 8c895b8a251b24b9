"""Which of the allowed features are trained, and the beta2 that fits them."""

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Chosen:
    """What a pass over the examples decided."""

    features: list[int] | None
    """None: all of the SAE's."""
    beta2: float
    never_fire: int | None = None
    """How many never fire in the examples; None where that was not counted."""
    told: str | None = None
    """How they were chosen, in words; None: all that are allowed."""
    sampled: TextGradients | None = None
    """Their gradients on the reference, tokens drawn, where these were measured."""

    def entries(self) -> dict[str, Any]:
        """The same as entries of the training's record."""
        counted = {} if self.never_fire is None else {"never_fire": self.never_fire}
        told = {} if self.told is None else {"relevance": self.told}
        return {"features": self.features, "beta2": self.beta2} | counted | told


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
        self, config: SaeAdapterConfig, n_allowed: int, rule: Rule, auto_beta2: bool
    ) -> Chosen:
        """The features that are trained, from a pass over the examples where they or beta2 depend on
        one.

        Args:
            config: of the adapter on all allowed features.
            n_allowed: how many these are.
            rule: how they are chosen.
            auto_beta2: whether beta2 follows from how often they fire.

        """
        target = Target.parse(config.targets[0])
        component, features = config.component, target.features
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
                site = self._site(target, config, pushes)
                gradient = self._gradient(site) if pushes else gradient
                sampled = self._sampled(site)
            count = rule.count or fitting_count(scores(gradient, sampled))
            if count is not None:
                choice = choose(gradient, sampled, count, rule.by)
                told = f"{choice.told} of {n_allowed} allowed"
                features = [
                    int(i) if features is None else features[int(i)] for i in choice.indices
                ]
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

    def _gradient(self, site: Site) -> Any:
        """Of the loss with respect to pushes, mean over what is learned."""
        encoded = encode(self.examples.rows, self.tokenizer, self.options, self.options.max_length)
        with self.reporter.bar("gradients", len(encoded.rows)) as tick:
            found = text_gradients(self.network, site, encoded.rows, None, tick)
        return -found.mean.numpy()

    def _sampled(self, site: Site) -> TextGradients:
        rows = [plain_row(ids) for ids in self.reference or []]
        with self.reporter.bar("Fisher information", len(rows)) as tick:
            return text_gradients(self.network, site, rows, self.options.seed, tick)
