"""What is minimised while an adapter is trained, and what is scored."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.training import TrainingOptions
from .budget import Multiplier
from .components.component import Component
from .encoding import IGNORED, Encoded
from .layer import SaeAdapterLayer, find_layer
from .reference import Reference
from .watch import Watch, watching

ADAPTER = "default"
OBJECTIVE = "objective"
"""Of what is scored, by what the best adapter is chosen."""


class Penalised:
    """What is added to the loss while training, and how losses of batches are put together; mixed into
    TRL's trainers.

    TRL's evaluation is a mean over examples of their batches' means, which depends on what happens to
    be batched with what (and leaves out batches that are not finite). Here each batch counts by its
    :meth:`weight`: the loss is the mean over tokens (sft) or pairs (dpo). Beside it stand the size of
    the edits, drift and KL on reference text, and the objective: the loss with all penalties.
    """

    def __init__(
        self,
        options: TrainingOptions,
        reference: Reference | None,
        encoded: tuple[Encoded, Encoded],
        **others: Any,
    ) -> None:
        self._options, self._reference = options, reference
        self.encoded = encoded
        """What is trained on, and what is scored."""
        self._scored: list[tuple[float, int]] = []
        self._sizes: list[tuple[float, int]] = []
        self._in_step: tuple[int, int, int] | None = None
        super().__init__(**others)

    def weight(self, batch: Mapping[str, Tensor]) -> int:
        """Over how many tokens or pairs the loss of a batch is the mean."""
        if "labels" in batch:
            return int((batch["labels"][:, 1:] != IGNORED).sum())
        return len(batch["input_ids"]) // 2

    def prediction_step(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
        trainer: Any = super()
        weight, mask = self.weight(inputs), inputs["attention_mask"]
        with watching(model, gradients=False) as watch:
            found = trainer.prediction_step(model, inputs, *others, **named)
        self._scored.append((float(found[0]), weight))
        counted = _counted(model, mask) if watch.edits else None
        if counted is not None and counted.any():
            self._sizes.append((float(watch.edit_size(counted)), int(counted.sum())))
        return found

    def evaluation_loop(self, *others: Any, metric_key_prefix: str = "eval", **named: Any) -> Any:
        trainer: Any = super()
        ours: Any = self
        self._scored.clear()
        self._sizes.clear()
        found = trainer.evaluation_loop(*others, metric_key_prefix=metric_key_prefix, **named)
        for name, value in self._scores(ours.model).items():
            found.metrics[f"{metric_key_prefix}_{name}"] = value
        return found

    def _scores(self, model: Any) -> dict[str, float]:
        loss = _mean(self._scored)
        scores, objective = {"loss": loss}, loss
        if self._sizes:
            scores["edit"] = _mean(self._sizes)
            objective += self._options.l1 * scores["edit"] + _own_penalties(model)
        if self._reference is not None:
            if self._reference.drift is not None:
                with torch.no_grad():
                    scores["drift"] = float(self._drift(model))
                objective += self._options.drift * scores["drift"]
            scores["kl"] = self._reference.divergence(model)
            if self._reference.budgeted is not None:
                objective += self._reference.budgeted.within(self._before(loss), loss, scores["kl"])
                objective -= loss
        return scores | {OBJECTIVE: objective}

    def loss_on(self, dataset: Any) -> float:
        """The loss of further examples, without penalties, as evaluations count it; nothing is logged."""
        trainer: Any = self
        self._scored.clear()
        model = trainer.model.eval()
        for batch in trainer.get_eval_dataloader(dataset):
            self.prediction_step(model, batch, True)
        return _mean(self._scored)

    def _before(self, loss: float) -> float:
        """The loss before training; that of now where it has not begun."""
        ours: Any = self
        scored = (entry["eval_loss"] for entry in ours.state.log_history if "eval_loss" in entry)
        return float(next(scored, loss))

    def _drift(self, model: Any, step: int | None = None) -> Tensor:
        """Summed over the places that are edited, each moved by its own edit."""
        assert self._reference is not None
        assert self._reference.drift is not None
        total = torch.zeros(())
        for target in model.peft_config[ADAPTER].targets:
            layer, place = find_layer(model, target["hook"])
            moved = self._reference.drift[target["hook"]](layer, place, ADAPTER, step)
            total = total.to(moved.device) + moved
        return total

    def get_batch_samples(self, *given: Any) -> Any:
        trainer: Any = super()
        state: Any = self
        batches, count = trainer.get_batch_samples(*given)
        masks = [batch["attention_mask"] for batch in batches]
        self._in_step = sum(int(mask.sum()) for mask in masks), sum(map(len, masks)), len(masks)
        if count is not None and "labels" in batches[0]:
            # The Trainer counts labels of first tokens too, which nothing predicts: its mean would be
            # too small, most so of short texts.
            firsts = sum(int((batch["labels"][:, 0] != IGNORED).sum()) for batch in batches)
            count = count - firsts * state.args.world_size
        return batches, count

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        trainer: Any = super()
        state: Any = self
        if not model.training:
            return trainer.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        options, mask = self._options, inputs["attention_mask"]
        with watching(model) as watch:
            loss = trainer.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, *outputs = loss if return_outputs else (loss,)
        # Batches of a step count by what they hold, not one like the other.
        n_tokens, n_rows, n_batches = self._in_step or (int(mask.sum()), len(mask), 1)
        whole = state.model_accepts_loss_kwargs and num_items_in_batch is not None
        if not whole:
            loss = loss * (len(mask) / n_rows)
        if options.l1:
            loss = loss + options.l1 * self._edit_size(model, watch, mask, n_tokens, n_rows)
        if options.drift and self._reference is not None:
            moved = self._drift(model, state.state.global_step)
            loss = loss + options.drift / n_batches * moved.to(loss.device)
        if self._reference is not None and self._reference.budgeted is not None:
            multiplier = next(
                c for c in state.callback_handler.callbacks if isinstance(c, Multiplier)
            )
            step, count = state.state.global_step, int(mask.sum())
            held = self._reference.budgeted.term(model, multiplier, step, count)
            loss = loss + held.to(loss.device) / n_batches
        if not whole:
            # The Trainer then takes it for one of so many means.
            loss = loss * n_batches
        return (loss, *outputs) if return_outputs else loss

    def _edit_size(
        self, model: nn.Module, watch: Watch, mask: Tensor, n_tokens: int, n_rows: int
    ) -> Tensor:
        """A batch's part of a step's mean."""
        every = _edited(model) is None
        # Of a part of the tokens the number in the whole step is not known: rows count alike.
        share = int(mask.sum()) / n_tokens if every else len(mask) / n_rows
        return share * watch.edit_size(_counted(model, mask)).to(mask.device)


def _mean(parts: list[tuple[float, int]]) -> float:
    """Of means and over how many each is."""
    return math.fsum(value * weight for value, weight in parts) / sum(w for _, w in parts)


def _edited(model: nn.Module) -> Tensor | None:
    """Which tokens of the last batch the adapter edits; None: all."""
    layer = next(m for m in model.modules() if isinstance(m, SaeAdapterLayer))
    return layer.tokens(ADAPTER)


def _counted(model: nn.Module, mask: Tensor) -> Tensor:
    """The tokens of the last batch that are edited, padding aside."""
    edited = _edited(model)
    return mask if edited is None else mask.bool() & edited.to(mask.device)


def _own_penalties(model: nn.Module) -> float:
    parts = [m for m in model.modules() if isinstance(m, Component)]
    with torch.no_grad():
        return sum(float(component.penalty()) for component in parts)
