"""What a training will gain and cost, before it is done.

To second order in what a linear component learns (s, see :mod:`.gradients`) the loss of the data falls by
g's - 1/2 s'H s and predictions on reference text move by the KL 1/2 s'F s; H and F are Fisher's
information on data and reference. The training is simulated on this model: its optimiser's own steps,
AdamW with a rate that falls linearly to 0, over batches of the texts' own gradients (rare features have
gradients in few of them, which Adam's means see), less H s.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .gradients import TextGradients
from .relevance import shrunk

_BETA1 = 0.9
_EPSILON = 1e-8


@dataclass(frozen=True)
class Forecast:
    """Of a training of a linear component."""

    learnt: NDArray[np.float64]
    """s at its end, a number for each feature."""
    gain: float
    """Fall of the held-out loss, in nats a token."""
    kl: float
    """KL(without || with the adapter) on the reference, in nats a token."""


@dataclass(frozen=True)
class Schedule:
    """How the optimiser goes."""

    n_steps: int
    batch_size: int
    """Examples in an optimiser step."""
    learning_rate: float
    beta2: float
    seed: int


def forecast(
    data: TextGradients,
    data_sampled: TextGradients,
    held_out: TextGradients,
    reference: TextGradients,
    schedule: Schedule,
) -> Forecast:
    """Simulate a training.

    Args:
        data: gradients of the log likelihood of the training's texts.
        data_sampled: of tokens drawn, for H.
        held_out: of the log likelihood of held-out texts, which the gain is of.
        reference: of tokens drawn on the reference, for F.
        schedule: of the optimiser.

    """
    task = shrunk(data_sampled.by_text.numpy(), data_sampled.n_tokens)
    cost = shrunk(reference.by_text.numpy(), reference.n_tokens)
    learnt = simulate(data, torch.as_tensor(task), schedule).numpy()
    gain = float(held_out.mean.numpy() @ learnt - learnt @ task @ learnt / 2)
    return Forecast(learnt, gain, float(learnt @ cost @ learnt / 2))


def simulate(data: TextGradients, curvature: Tensor, schedule: Schedule) -> Tensor:
    """S at the end of a training on the quadratic model, ``[feature]``."""
    texts, n_texts = data.by_text, len(data.by_text)
    tokens_a_text = data.n_tokens / n_texts
    s = torch.zeros(texts.shape[1], dtype=torch.float64)
    mean, square = torch.zeros_like(s), torch.zeros_like(s)
    generator = torch.Generator().manual_seed(schedule.seed)
    order: list[int] = []
    for step in range(schedule.n_steps):
        while len(order) < schedule.batch_size:
            order += torch.randperm(n_texts, generator=generator).tolist()
        batch, order = order[: schedule.batch_size], order[schedule.batch_size :]
        # The loss is a mean over the batch's tokens; texts are taken as of one length.
        gradient = curvature @ s - texts[batch].sum(dim=0) / (tokens_a_text * len(batch))
        mean = _BETA1 * mean + (1 - _BETA1) * gradient
        square = schedule.beta2 * square + (1 - schedule.beta2) * gradient.square()
        corrected = mean / (1 - _BETA1 ** (step + 1))
        root = (square / (1 - schedule.beta2 ** (step + 1))).sqrt()
        rate = schedule.learning_rate * (1 - step / schedule.n_steps)
        s = s - rate * corrected / (root + _EPSILON)
    return s
