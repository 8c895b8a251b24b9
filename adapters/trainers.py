"""TRL's trainers over a model with an adapter."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars, enable_progress_bars
from datasets.utils.logging import is_progress_bar_enabled
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, TaskType
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from ..core.choices import Baseline
from ..core.errors import InputError
from ..core.networks import quiet_libraries
from ..core.training import TrainingOptions
from .components.component import Component
from .encoding import IGNORED, Encoded, encode, usable_length
from .examples import Examples
from .layer import SaeAdapterLayer
from .penalties import Drift, watching
from .places import locate

ADAPTER = "default"


class ProximalStep(TrainerCallback):  # type: ignore[misc]
    """Lets components do what follows an optimiser's step (``sparse``: shrink its matrix); to be
    among the ``callbacks`` of a trainer.
    """

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, model: nn.Module, optimizer: Any, **others: Any
    ) -> None:
        learning_rate = float(optimizer.param_groups[0]["lr"])
        for module in model.modules():
            if isinstance(module, Component):
                module.after_step(learning_rate)


class _Bar(TrainerCallback):  # type: ignore[misc]
    def __init__(self, tick: Callable[[int], object]) -> None:
        self._tick = tick
        self._seen = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        # After a resume the first step stands for all before it.
        self._tick(state.global_step - self._seen)
        self._seen = state.global_step


class _Penalised:
    """What is added to the loss while training, and how losses of batches are put together; mixed into
    TRL's trainers.

    TRL's evaluation is a mean over examples of their batches' means, which depends on what happens to
    be batched with what (and leaves out batches that are not finite). Here each batch counts by its
    :meth:`weight`: the loss is the mean over tokens (sft) or pairs (dpo).
    """

    def __init__(
        self,
        options: TrainingOptions,
        drift: Drift | None,
        encoded: tuple[Encoded, Encoded],
        **others: Any,
    ) -> None:
        self._options, self._drift = options, drift
        self.encoded = encoded
        """What is trained on, and what is scored."""
        self._scored: list[tuple[float, int]] = []
        self._in_step: tuple[int, int, int] | None = None
        super().__init__(**others)

    def weight(self, batch: Mapping[str, Tensor]) -> int:
        """Over how many tokens or pairs the loss of a batch is the mean."""
        if "labels" in batch:
            return int((batch["labels"][:, 1:] != IGNORED).sum())
        return len(batch["input_ids"]) // 2

    def prediction_step(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
        trainer: Any = super()
        weight = self.weight(inputs)
        found = trainer.prediction_step(model, inputs, *others, **named)
        self._scored.append((float(found[0]), weight))
        return found

    def evaluation_loop(self, *others: Any, metric_key_prefix: str = "eval", **named: Any) -> Any:
        trainer: Any = super()
        self._scored.clear()
        found = trainer.evaluation_loop(*others, metric_key_prefix=metric_key_prefix, **named)
        total = math.fsum(loss * weight for loss, weight in self._scored)
        found.metrics[f"{metric_key_prefix}_loss"] = total / sum(w for _, w in self._scored)
        return found

    def get_batch_samples(self, *given: Any) -> Any:
        trainer: Any = super()
        batches, count = trainer.get_batch_samples(*given)
        masks = [batch["attention_mask"] for batch in batches]
        self._in_step = sum(int(mask.sum()) for mask in masks), sum(map(len, masks)), len(masks)
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
        options, drift, mask = self._options, self._drift, inputs["attention_mask"]
        with watching(model) as watch:
            loss = trainer.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, *outputs = loss if return_outputs else (loss,)
        # Batches of a step count by what they hold, not one like the other.
        n_tokens, n_rows, n_batches = self._in_step or (int(mask.sum()), len(mask), 1)
        whole = state.model_accepts_loss_kwargs and num_items_in_batch is not None
        if not whole:
            loss = loss * (len(mask) / n_rows)
        if options.l1:
            edited = _edited(model)
            # Of a part of the tokens the number in the whole step is not known: rows count alike.
            share = int(mask.sum()) / n_tokens if edited is None else len(mask) / n_rows
            counted = mask if edited is None else mask.bool() & edited.to(mask.device)
            loss = loss + options.l1 * share * watch.edit_size(counted).to(loss.device)
        if drift is not None and options.drift:
            for target in model.peft_config[ADAPTER].targets:
                layer, place = find_layer(model, target["hook"])
                moved = drift(layer, place, ADAPTER, state.state.global_step)
                loss = loss + options.drift / n_batches * moved
        if not whole:
            # The Trainer then takes it for one of so many means.
            loss = loss * n_batches
        return (loss, *outputs) if return_outputs else loss


def _edited(model: nn.Module) -> Tensor | None:
    """Which tokens of the last batch the adapter edits; None: all."""
    layer = next(m for m in model.modules() if isinstance(m, SaeAdapterLayer))
    return layer.tokens(ADAPTER)


class _Sft(_Penalised, SFTTrainer):  # type: ignore[misc]
    pass


class _Dpo(_Penalised, DPOTrainer):  # type: ignore[misc]
    def _prepare_dataset(self, dataset: Dataset, *others: Any) -> Dataset:
        # Unlike SFTTrainer, TRL's has no way around its own reading of texts.
        return dataset


def make_trainer(
    network: nn.Module,
    tokenizer: Any,
    config: PeftConfig,
    options: TrainingOptions,
    examples: Examples,
    evaluated: Examples | None,
    folder: Path,
    drift: Drift | None = None,
    resumes: bool = False,
) -> Any:
    """TRL's trainer of an objective over a model, with our penalties; it puts the adapter on.

    DPO's reference is the model without adapters.

    Args:
        network: a Hugging Face causal language model without adapters; it is changed.
        tokenizer: its tokenizer.
        config: of the adapter, ours or another of PEFT's.
        options: how to train.
        examples: to train on.
        evaluated: to score, the same columns; None: one of those that are trained on, where nothing
            is scored.
        folder: for checkpoints.
        drift: of reference text, where ``options.drift`` is not 0.
        resumes: whether it will go on from a checkpoint.

    Raises:
        InputError: no example is left within ``max_length``.

    """
    kind, arguments = {"sft": (_Sft, SFTConfig), "dpo": (_Dpo, DPOConfig)}[options.objective]
    n_steps = steps(options, len(examples.rows))
    every = -(-n_steps // options.evaluations)
    max_length = usable_length(network, options.max_length)
    more = {} if options.objective == "sft" else {"beta": options.dpo_beta}
    given = encode(examples.rows, tokenizer, options, max_length)
    check_left(given, "train on", max_length)
    if evaluated is None:
        held_out = replace(given, rows=given.rows[:1])  # TRL wants something
    else:
        held_out = encode(evaluated.rows, tokenizer, options, max_length)
        check_left(held_out, "score", max_length)
    args = arguments(
        output_dir=str(folder),
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        adam_beta2=options.beta2,
        max_steps=n_steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        max_length=max_length,
        eval_strategy="steps",
        eval_steps=every,
        # Done before the checkpoint; once more, it would count against the patience.
        eval_on_start=not resumes,
        restore_callback_states_from_checkpoint=True,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=every,
        seed=options.seed,
        data_seed=options.seed,
        report_to=options.report_to,
        # TRL's own choice is bfloat16 and recomputed layers, also on a CPU: the saved adapter would
        # give another loss than the one that was measured.
        bf16=False,
        fp16=False,
        gradient_checkpointing=options.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=next(network.parameters()).device.type == "cpu",
        disable_tqdm=True,
        **more,
    )
    callbacks: list[TrainerCallback] = [ProximalStep()]
    if options.patience is not None:
        callbacks.append(EarlyStoppingCallback(options.patience))
    trainer: Any = kind(
        options,
        drift,
        (given, held_out),
        model=network,
        args=args,
        train_dataset=Dataset.from_list(given.rows),
        eval_dataset=Dataset.from_list(held_out.rows),
        processing_class=tokenizer,
        peft_config=config,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def tell_steps(trainer: Any, tick: Callable[[int], object]) -> None:
    """Let a function be called with the number of steps that a trainer has done since the last
    call.
    """
    trainer.add_callback(_Bar(tick))


def check_left(encoded: Encoded, what: str, max_length: int) -> None:
    """Refuse examples of which ``max_length`` leaves none.

    Raises:
        InputError: none is left.

    """
    if not encoded.rows:
        raise InputError(
            f"no example to {what} has a token to learn within {max_length} tokens; expected at least "
            "one; raise --max-length, up to what the model takes, or shorten the prompts"
        )


def steps(options: TrainingOptions, n_examples: int) -> int:
    """Optimiser steps of a training on so many examples."""
    if options.max_steps is not None:
        return options.max_steps
    batches = -(-n_examples // options.batch_size)
    return max(1, int(options.epochs * -(-batches // options.accumulation)))


def find_layer(model: nn.Module, hook: str) -> tuple[SaeAdapterLayer, str]:
    """The adapter's layer of a hook point and the name of the place there."""
    tuned: Any = model
    base = tuned.get_base_model() if isinstance(model, PeftModel) else model
    path, _, place = locate(base, hook)
    layer = base.get_submodule(path)
    assert isinstance(layer, SaeAdapterLayer)
    return layer, place


@contextmanager
def quiet_training() -> Iterator[None]:
    """Silence the bars and notices of the training libraries, not their errors."""
    shown = is_progress_bar_enabled()
    disable_progress_bars()
    try:
        with quiet_libraries():
            yield
    finally:
        if shown:
            enable_progress_bars()


def _lora(rank: int) -> PeftConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, task_type=TaskType.CAUSAL_LM)


def _ia3(rank: int) -> PeftConfig:
    return IA3Config(task_type=TaskType.CAUSAL_LM)


_BASELINES: Mapping[Baseline, Callable[[int], PeftConfig]] = {"lora": _lora, "ia3": _ia3}
"""Configurations of PEFT's own methods, from a rank."""


def baseline_config(name: Baseline, rank: int) -> PeftConfig:
    """PEFT's own LoRA (of this rank, alpha twice that) or IA3, at the places that it takes for the
    model's type; ``name`` is one of :data:`core.choices.BASELINES`.
    """
    return _BASELINES[name](rank)
