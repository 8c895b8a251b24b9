"""What the adapters of one topic and seed share: texts, gradients, measures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...adapters.examples import Examples, gather
from ...adapters.forecasting import Forecast, Schedule, forecast
from ...adapters.gradients import Site, TextGradients, text_gradients
from ...adapters.model import Fit
from ...adapters.padding import Row
from ...adapters.positions import Which
from ...adapters.relevance import choose
from ...core.training import TrainingOptions
from .design import LEARNING_RATES, LINEAR, UNCHOSEN, Design, Job
from .scores import DPO_BETA, Elsewhere, Preferences, token_loss
from .texts import Pair, Texts, pairs_of, plain, read_texts

BETA2 = 0.99
_PAIRS = 300
"""Preferences that are scored, at most."""

Loss = Callable[[Any], float]


@dataclass(frozen=True)
class Gradients:
    """Of all features, for one kind of edit."""

    data: TextGradients
    data_sampled: TextGradients
    held_out: TextGradients
    reference: TextGradients

    def of(self, indices: NDArray[np.int64]) -> "Gradients":
        """The same of some features."""
        return Gradients(*(part.of(indices) for part in vars(self).values()))


class Block:
    """A topic with a seed.

    Args:
        topic: name of an installed package.
        seed: of texts, training and draws.
        design: of the experiment.
        network: the model without adapters.
        tokenizer: its tokenizer.
        here: the SAE, whole, in the model.
        below: the downstream SAE likewise.

    """

    def __init__(
        self,
        topic: str,
        seed: int,
        design: Design,
        network: Any,
        tokenizer: Any,
        here: Fit,
        below: Fit,
    ) -> None:
        self.seed, self._design = seed, design
        self._network, self._tokenizer, self._here = network, tokenizer, here
        self._texts: Texts = read_texts(topic, seed, tokenizer, design)
        self.elsewhere = Elsewhere(network, below, self._texts.other)
        self._gradients: dict[bool, Gradients] = {}

    @cached_property
    def _pairs(self) -> tuple[list[Pair], list[Pair]]:
        """To learn from, and to score."""
        learnt, kept = (
            pairs_of(rows, self._network, self.seed)
            for rows in (self._texts.train, self._texts.held_out)
        )
        return learnt, kept[:_PAIRS]

    def examples(self, job: Job) -> Examples:
        """What an adapter is trained on."""
        if job.objective == "dpo":
            rows = [pair.text(self._tokenizer) for pair in self._pairs[0]]
            return gather([row for row in rows if row["chosen"] != row["rejected"]])
        return gather([{"text": text} for text in self._texts.written])

    @cached_property
    def _token_loss(self) -> tuple[Loss, float]:
        def loss(network: Any) -> float:
            return token_loss(network, plain(self._texts.held_out))

        return loss, loss(self._network)

    @cached_property
    def _preference_loss(self) -> tuple[Loss, float]:
        preferences = Preferences(self._network, self._pairs[1])
        return preferences.loss, preferences.loss(self._network)

    def loss(self, job: Job) -> tuple[Loss, float]:
        """What measures the held-out loss, and what it is without an adapter."""
        return self._token_loss if job.objective == "sft" else self._preference_loss

    def options(self, job: Job) -> TrainingOptions:
        """How an adapter is trained."""
        design = self._design
        return TrainingOptions(
            objective=job.objective,
            learning_rate=LEARNING_RATES[job.method],
            max_steps=design.steps,
            batch_size=design.batch_size,
            max_length=design.max_length,
            beta2=BETA2,
            dpo_beta=DPO_BETA,
            evaluations=1,
            seed=self.seed,
        )

    def features(self, job: Job, pool: Sequence[int]) -> list[int]:
        """The features of a pool that are worth most, by what they gain at equal KL on the reference
        (:func:`adapters.relevance.choose`, ``fisher``); of pool ``unchosen`` any.
        """
        count = min(job.count, len(pool))
        if job.pool == UNCHOSEN:
            drawn = np.random.default_rng(self.seed).choice(len(pool), count, replace=False)
        else:
            gradients = self._of(job)
            indices = np.array(pool)
            learnt = self._preferred if job.objective == "dpo" else gradients.data.mean.numpy()
            drawn = choose(
                learnt[indices], gradients.reference.of(indices), count, "fisher"
            ).indices
        return sorted(int(pool[i]) for i in drawn)

    def forecast(self, job: Job, features: Sequence[int]) -> Forecast | None:
        """What the training will gain and cost; None where it cannot be foreseen."""
        if job.method not in LINEAR or job.objective != "sft":
            return None
        parts = self._of(job).of(np.array(features))
        options = self.options(job)
        schedule = Schedule(
            self._design.steps, options.batch_size, options.learning_rate, BETA2, self.seed
        )
        return forecast(parts.data, parts.data_sampled, parts.held_out, parts.reference, schedule)

    def _of(self, job: Job) -> Gradients:
        """Of pushes for ``bias`` and of scalings for all other components."""
        reads = job.method != "bias"
        if reads not in self._gradients:
            texts, seed = self._texts, self.seed
            self._gradients[reads] = Gradients(
                self._measured(reads, plain(texts.train), None),
                self._measured(reads, plain(texts.train), seed),
                self._measured(reads, plain(texts.held_out), None),
                self._measured(reads, plain(texts.reference), seed),
            )
        return self._gradients[reads]

    @cached_property
    def _preferred(self) -> NDArray[np.float64]:
        """Of DPO's loss at its start, with respect to scalings: the difference of the answers'
        log likelihoods, times -beta / 2.
        """
        chosen, rejected = (
            self._measured(True, [getattr(pair, name) for pair in self._pairs[0]], None)
            for name in ("chosen", "rejected")
        )
        difference = (chosen.by_text - rejected.by_text).mean(dim=0)
        return (-DPO_BETA / 2 * difference).numpy()

    def _measured(self, reads: bool, rows: Sequence[Row], seed: int | None) -> TextGradients:
        site = Site(self._here.place, self._here.part, reads, Which())
        return text_gradients(self._network, [site], list(rows), seed)
