"""Learning as much as a budget of KL on reference text allows.

What is minimised while training is loss + lambda KL(without || with the adapter), on a few reference
texts a step. lambda is raised while KL lies above the budget and lowered while it lies below (dual ascent
on its logarithm; A. Stooke et al., "Responsive Safety in Reinforcement Learning by PID Lagrangian
Methods", arXiv:2007.03964, section 4, integral part). Afterwards the edit as a whole is scaled to the
budget on other reference texts, and its KL is measured on a third part, which nothing was fitted to.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from ..core.errors import InputError
from .amplitude import Amplitude
from .padding import plain_row
from .reference import divergence, step_divergence

FEWEST = 3
"""Reference texts: one for each part."""
_SHARE = 0.25
"""Reference tokens in a step, for every token that is trained on."""
_KEPT = 0.8
"""Of the running mean of KL, what a step keeps."""
_CHANGE = 10.0
"""The most that the logarithm of lambda changes in a whole training."""
_CLOSE = 0.01
_TRIES = 8
_LARGEST = 2.0
"""How many times the edit may be scaled up."""


@dataclass(frozen=True)
class Parts:
    """Reference texts as tokens, in three parts."""

    trained: Sequence[list[int]]
    scaled: Sequence[list[int]]
    held_out: Sequence[list[int]]

    @classmethod
    def of(cls, rows: Sequence[list[int]]) -> "Parts":
        """Every third text to each.

        Raises:
            InputError: there are fewer than three.

        """
        if len(rows) < FEWEST:
            raise InputError(
                f"--reference has {len(rows)} texts of use; expected {FEWEST} at least with --kl-budget, "
                "one for each of training, scaling and measuring; give more"
            )
        return cls(rows[::3], rows[1::3], rows[2::3])


class Multiplier(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Lambda, and the running mean of KL that it follows; kept in checkpoints."""

    def __init__(self, budget: float, n_steps: int) -> None:
        self.budget, self.n_steps = budget, n_steps
        self.value, self.mean = 1.0, 0.0
        self.second: float | None = None
        """KL at the second step: of what the first one did."""
        self._seen: list[float] = []

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        args = {"budget": self.budget, "n_steps": self.n_steps}
        kept = {"value": self.value, "mean": self.mean, "second": self.second}
        return {"args": args, "attributes": kept}

    def see(self, kl: float) -> None:
        """Take note of the KL of a batch."""
        self._seen.append(kl)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Follow the KL of the step."""
        if not self._seen:
            return
        kl = sum(self._seen) / len(self._seen)
        self._seen.clear()
        if state.global_step == 2:
            self.second = kl
        self.mean = _KEPT * self.mean + (1 - _KEPT) * kl
        above = math.log(max(self.mean, 1e-12) / self.budget) if math.isfinite(kl) else 1.0
        self.value *= math.exp(_CHANGE / self.n_steps * max(-1.0, min(1.0, above)))


class Budgeted:
    """What holds a training to its budget.

    Args:
        budget: KL in nats, mean over tokens.
        parts: the reference.
        seed: of the texts of each step.

    """

    def __init__(self, budget: float, parts: Parts, seed: int) -> None:
        self.budget, self.parts, self._seed = budget, parts, seed

    def term(self, model: Any, multiplier: Multiplier, step: int, n_tokens: int) -> Tensor:
        """Lambda KL on reference texts drawn for a step, which are the same for the same step.

        Args:
            model: a PEFT model.
            multiplier: lambda; it sees the KL.
            step: optimiser steps done.
            n_tokens: how many are trained on in this batch.

        """
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        drawn, count = [], 0
        for at in torch.randperm(len(self.parts.trained), generator=generator).tolist():
            drawn.append(plain_row(self.parts.trained[at]))
            count += len(self.parts.trained[at])
            if count >= _SHARE * n_tokens:
                break
        kl = step_divergence(model, drawn)
        multiplier.see(float(kl.detach()))
        return multiplier.value * kl

    def within(self, before: float, loss: float, kl: float) -> float:
        """The loss that is expected once the edit is scaled back to the budget."""
        return before - gain_within(self.budget, before - loss, kl)


def gain_within(budget: float, gain: float, kl: float) -> float:
    """What an edit gains once it is scaled back to a budget of KL: to first order its gain falls with its
    size, and KL with its square.
    """
    return gain if kl <= budget else gain * math.sqrt(budget / kl)


@dataclass(frozen=True)
class Scaled:
    """What scaling the edit to the budget gave."""

    gamma: float
    """What its size was multiplied by."""
    kl: float
    """On the reference texts that it was scaled by."""
    held_out: float
    """On those that nothing was fitted to."""
    held_out_tokens: int


def scale_to_budget(model: Any, budgeted: Budgeted, loss: Callable[[], float]) -> Scaled:
    """Scale an edit so that its KL on reference text is the budget's, or less where that loses less.

    Args:
        model: a trained PEFT model; it is changed.
        budgeted: budget and reference.
        loss: the held-out loss of the model as it is.

    """
    amplitude, parts = Amplitude(model), budgeted.parts

    def kl_at(gamma: float) -> float:
        amplitude.set(gamma)
        return divergence(model, parts.scaled)[0]

    whole = kl_at(1.0)
    gamma, kl = _meeting(kl_at, budgeted.budget, whole)
    if gamma > 1.0:
        amplitude.set(1.0)
        unscaled = loss()
        amplitude.set(gamma)
        if loss() >= unscaled:
            gamma, kl = 1.0, whole
    amplitude.set(gamma)
    held_out, n_tokens = divergence(model, parts.held_out)
    return Scaled(gamma, kl, held_out, n_tokens)


def _meeting(kl_at: Callable[[float], float], budget: float, whole: float) -> tuple[float, float]:
    """Gamma, at most 2, at which KL is the budget to 1 %: by secants of its logarithm, which rises about
    twice as fast as that of gamma, between bounds.
    """
    low, high = 0.0, _LARGEST
    gamma, kl, slope = 1.0, whole, 2.0
    best = (0.0, 0.0)
    for _ in range(_TRIES):
        if kl <= budget * (1 + _CLOSE):
            low, best = gamma, max(best, (gamma, kl))
        else:
            high = gamma
        if abs(kl - budget) <= _CLOSE * budget or high - low < 1e-4 or low >= _LARGEST:
            break
        following = gamma * (budget / kl) ** (1 / slope) if 0 < kl < math.inf else 0.0
        if not low < following < high:
            following = min((low + high) / 2, _LARGEST) if high < _LARGEST else _LARGEST
        before = (gamma, kl)
        gamma = following
        kl = kl_at(gamma)
        if 0 < before[1] < math.inf and 0 < kl < math.inf and gamma != before[0]:
            slope = math.log(kl / before[1]) / math.log(gamma / before[0])
            slope = min(max(slope, 0.5), 4.0)
    if kl <= budget * (1 + _CLOSE):
        best = max(best, (gamma, kl))
    return best
