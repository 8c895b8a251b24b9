"""TRL's trainers over a model with an adapter."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars, enable_progress_bars
from datasets.utils.logging import is_progress_bar_enabled
from peft import IA3Config, LoraConfig, PeftConfig, TaskType
from torch import nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from trl import DPOTrainer, SFTTrainer

from ..core.choices import Baseline
from ..core.errors import InputError
from ..core.networks import quiet_libraries
from ..core.records.training import FreshLosses
from ..core.training import TrainingOptions
from .arguments import DPOConfig, SFTConfig
from .budget import Multiplier
from .encoding import Encoded, encode, usable_length
from .examples import Examples
from .objective import OBJECTIVE, Penalised
from .reference import Reference
from .tracking import TrackFeatures


class ProximalStep(TrainerCallback):  # type: ignore[misc]
    """Not needed any more, and does nothing: components see to it themselves."""


class _Bar(TrainerCallback):  # type: ignore[misc]
    def __init__(self, tick: Callable[[int], object]) -> None:
        self._tick = tick
        self._seen = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        # After a resume the first step stands for all before it.
        self._tick(state.global_step - self._seen)
        self._seen = state.global_step


class _Sft(Penalised, SFTTrainer):  # type: ignore[misc]
    pass


class _Dpo(Penalised, DPOTrainer):  # type: ignore[misc]
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
    reference: Reference | None = None,
    resumes: bool = False,
    tracked: TrackFeatures | None = None,
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
        reference: text that drift and KL are measured on, needed where ``options.drift`` is not 0.
        resumes: whether it will go on from a checkpoint.
        tracked: what watches the features.

    Raises:
        InputError: no example is left within ``max_length``.

    """
    kind, arguments = {"sft": (_Sft, SFTConfig), "dpo": (_Dpo, DPOConfig)}[options.objective]
    n_steps = steps(options, len(examples.rows))
    every = -(-n_steps // options.evaluations)
    max_length = usable_length(network, options.max_length)
    more: dict[str, Any] = {} if options.objective == "sft" else {"beta": options.dpo_beta}
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
        metric_for_best_model=f"eval_{OBJECTIVE}",
        greater_is_better=False,
        logging_steps=options.log_steps or every,
        seed=options.seed,
        data_seed=options.seed,
        report_to=options.report_to,
        gradient_checkpointing=options.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=next(network.parameters()).device.type == "cpu",
        disable_tqdm=True,
        **more,
    )
    callbacks: list[TrainerCallback] = [] if tracked is None else [tracked]
    if reference is not None and reference.budgeted is not None:
        callbacks.append(Multiplier(options.kl_budget or 0.0, n_steps))
    if options.patience is not None:
        callbacks.append(EarlyStoppingCallback(options.patience))
    trainer: Any = kind(
        options,
        reference,
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


def fresh_losses(trainer: Any, options: TrainingOptions, examples: Examples) -> FreshLosses:
    """The loss of further examples without the adapter and with it.

    Args:
        trainer: of :func:`make_trainer`, once it has trained.
        options: how it did, with a length that the model takes.
        examples: the same columns as those that were trained on.

    Raises:
        InputError: ``max_length`` leaves nothing of them.

    """
    max_length = options.max_length
    encoded = encode(examples.rows, trainer.processing_class, options, max_length)
    check_left(encoded, "score", max_length)
    dataset = Dataset.from_list(encoded.rows)
    after = trainer.loss_on(dataset)
    with trainer.model.disable_adapter():
        before = trainer.loss_on(dataset)
    return FreshLosses(
        before=before, after=after, n=len(encoded.rows), fingerprint=examples.fingerprint
    )


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
