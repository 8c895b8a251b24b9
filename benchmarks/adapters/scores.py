"""What an edit gains on held-out text of the topic, and what it changes elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...adapters.downstream import MOVED
from ...adapters.encoding import IGNORED
from ...adapters.model import Fit
from ...adapters.padding import Row, batches, padded
from ...adapters.slices import FIRES
from ...adapters.taps import tap
from .texts import Pair, plain

DPO_BETA = 0.1


@dataclass(frozen=True)
class Cost:
    """What changes on text of other packages, mean over tokens."""

    kl: float
    """KL(without || with the edit) of the next token, in nats."""
    moved: float
    """How many features of the downstream SAE change by more than 0.2 of their mean activation where they
    fire.
    """
    drift: float
    """Sum over them of the change of their activation, absolute."""


class Elsewhere:
    """Measures :class:`Cost` against a model as it is.

    Args:
        network: without adapters.
        below: the downstream SAE, whole, in the model.
        rows: texts as tokens.

    """

    @torch.no_grad()
    def __init__(self, network: Any, below: Fit, rows: Sequence[list[int]]) -> None:
        self._below = below
        device = next(network.parameters()).device
        self._given = [padded(batch, device) for batch in batches(plain(list(rows)))]
        self._clean = [self._pass(network, given) for given in self._given]
        latents = torch.cat([latents for _, latents in self._clean])
        fires = latents > FIRES
        usual = (latents * fires).sum(dim=0) / fires.sum(dim=0).clamp(min=1)
        self._least = torch.where(usual > 0, MOVED * usual, torch.inf)

    @torch.no_grad()
    def cost(self, network: Any) -> Cost:
        """Of a model of the same modules, edited."""
        kl, moved, drift = 0.0, 0.0, 0.0
        n_predicted, n_tokens = 0, 0
        for given, (before, latents) in zip(self._given, self._clean, strict=True):
            after, changed = self._pass(network, given)
            kl += float((before.exp() * (before - after)).sum(dtype=torch.float64))
            change = (changed - latents).abs()
            moved += float((change > self._least).sum())
            drift += float(change.sum(dtype=torch.float64))
            n_predicted, n_tokens = n_predicted + len(before), n_tokens + len(latents)
        return Cost(kl / n_predicted, moved / n_tokens, drift / n_tokens)

    def _pass(self, network: Any, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Ln p of the tokens that are predicted, and latents of all."""
        seen: list[Tensor] = []
        place = self._below.place

        def see(values: Tensor) -> None:
            seen.append(values * place.factor)

        handle = tap(place.module_in(network.get_submodule(place.layer)), place.at_input, see)
        try:
            logits = _logits(network, given)
        finally:
            handle.remove()
        counted = given["labels"][:, 1:] != IGNORED
        logs = torch.log_softmax(logits[:, :-1][counted].float(), dim=-1)
        values = seen[0][given["attention_mask"].bool()]
        return logs, self._below.part.encode(self._below.part.read(values)[0])


def _logits(network: Any, given: dict[str, Tensor]) -> Tensor:
    found: Tensor = network(
        input_ids=given["input_ids"], attention_mask=given["attention_mask"], use_cache=False
    ).logits
    return found


@torch.no_grad()
def log_likelihoods(network: Any, rows: Sequence[Row]) -> Tensor:
    """Ln p of what is predicted of each text, summed over its tokens; float64, on the CPU."""
    found = []
    for batch in batches(rows):
        given = padded(batch, next(network.parameters()).device)
        logs = torch.log_softmax(_logits(network, given)[:, :-1].float(), dim=-1)
        labels = given["labels"][:, 1:]
        said = logs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
        found.append((said * (labels != IGNORED)).sum(dim=1).double().cpu())
    return torch.cat(found)


def token_loss(network: Any, rows: Sequence[Row]) -> float:
    """Cross-entropy of what is predicted of texts, in nats a token."""
    n_tokens = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    return -float(log_likelihoods(network, rows).sum()) / n_tokens


class Preferences:
    """DPO's loss of pairs, in nats a pair (R. Rafailov et al., "Direct Preference Optimization",
    arXiv:2305.18290, equation 7), with the model as it is for a reference.

    Args:
        network: without adapters.
        pairs: prompts with two answers.

    """

    def __init__(self, network: Any, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs
        self._before = self._margins(network)

    def _margins(self, network: Any) -> Tensor:
        chosen, rejected = (
            log_likelihoods(network, [getattr(pair, name) for pair in self._pairs])
            for name in ("chosen", "rejected")
        )
        return chosen - rejected

    def loss(self, network: Any) -> float:
        """Of a model of the same modules, edited."""
        margins = DPO_BETA * (self._margins(network) - self._before)
        return float(-torch.nn.functional.logsigmoid(margins).mean())
