"""Training over TRL."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from torch import nn
from transformers import TrainerState

from ..core.errors import InputError
from ..core.records.training import Budget, Change, Effects, FreshLosses, LogEntry, Losses
from ..core.tables import write_atomically
from ..core.training import TrainingOptions
from .amplitude import Amplitude
from .budget import Multiplier, scale_to_budget
from .encoding import Encoded
from .examples import Examples
from .objective import ADAPTER
from .reference import Reference
from .tracking import TrackFeatures
from .trainers import fresh_losses, make_trainer, quiet_training, tell_steps

CHECKPOINTS = "checkpoints"
_LOGS = "runs"
_LOGGED = LogEntry.model_fields.keys()


@dataclass(frozen=True)
class Trained:
    """What training gave."""

    model: PeftModel
    """The model with the best adapter of all evaluations."""
    losses: Losses
    """On held-out examples, before training and of the best adapter."""
    effects: Effects
    """How much it changes, likewise."""
    history: list[LogEntry]
    """What was logged; None where it was not finite."""
    n_steps: int
    """Optimiser steps that were done."""
    encoded: tuple[Encoded, Encoded]
    """Examples trained on and scored, as tokens."""
    budget: Budget | None = None
    """How a budget of KL was kept."""
    fresh: FreshLosses | None = None
    """On examples that nothing was chosen by."""


class NotFiniteError(InputError):
    """The loss of a training is not finite."""


@dataclass(frozen=True)
class Prepared:
    """A training that can begin, or go on: model, adapter and data are ready."""

    trainer: Any
    """TRL's, with our penalties."""
    options: TrainingOptions
    reference: Reference | None = None
    last: tuple[Path, Any] | None = None
    """The checkpoint to go on from, and the trainer's state there; None: from the start."""
    fresh: Examples | None = None
    """Scored once, when all is done."""

    def run(self, tick: Callable[[int], object] = lambda _: None) -> Trained:
        """Train, and take the best adapter of all evaluations.

        Args:
            tick: called with the number of steps done.

        Raises:
            NotFiniteError: the loss is not finite.

        """
        trainer, last = self.trainer, self.last
        tell_steps(trainer, tick)
        with quiet_training():
            if last is not None and _is_at_end(last[1]):
                # Stopped after its last checkpoint: another step would be one too many.
                trainer.state = state = last[1]
                tick(state.global_step)
                if state.best_model_checkpoint is None:
                    raise _not_finite(state.best_metric, self.options)
                # Wherever that was when it was written.
                best = last[0].with_name(Path(state.best_model_checkpoint).name)
                trainer.model.load_adapter(str(best), ADAPTER, is_trainable=True)
            else:
                trainer.train(resume_from_checkpoint=None if last is None else str(last[0]))
            budget = self._scale()
        history = [
            LogEntry.model_validate({k: _finite(v) for k, v in entry.items() if k in _LOGGED})
            for entry in trainer.state.log_history
            if "loss" in entry or "eval_loss" in entry
        ]
        before, after = _ends(history, trainer.state.best_global_step)
        if budget is not None:
            after = history[-1]
        if after is None or None in (before.eval_loss, after.eval_loss, after.eval_objective):
            raise _not_finite(trainer.state.best_metric, self.options)
        losses = Losses(before=before.eval_loss or 0.0, after=after.eval_loss or 0.0)
        n_steps = int(trainer.state.global_step)
        effects = _effects(before, after)
        if budget is not None:
            kl = Change(before=0.0, after=budget.held_out)
            effects = effects.model_copy(update={"kl": kl})
        fresh = None
        if self.fresh is not None:
            with quiet_training():
                fresh = fresh_losses(trainer, self.options, self.fresh)
        return Trained(
            trainer.model, losses, effects, history, n_steps, trainer.encoded, budget, fresh
        )

    def _scale(self) -> Budget | None:
        """Scale the edit to its budget and score it once more; None where there is none."""
        if self.reference is None or self.reference.budgeted is None:
            return None
        trainer, budgeted = self.trainer, self.reference.budgeted

        def loss() -> float:
            logged = len(trainer.state.log_history)
            found = trainer.evaluate()
            del trainer.state.log_history[logged:]
            return float(found["eval_loss"])

        found = scale_to_budget(trainer.model, budgeted, loss)
        trainer.evaluate()
        multiplier = self._multiplier()
        return Budget(
            kl_budget=budgeted.budget,
            gamma=found.gamma,
            multiplier=multiplier.value,
            kl=found.kl,
            held_out=found.held_out,
            held_out_tokens=found.held_out_tokens,
            first_step=multiplier.second,
        )

    def _multiplier(self) -> Multiplier:
        callbacks = self.trainer.callback_handler.callbacks
        multiplier: Multiplier = next(c for c in callbacks if isinstance(c, Multiplier))
        if self.last is not None and _is_at_end(self.last[1]):
            # No training that would have restored it.
            kept = self.last[1].stateful_callbacks["Multiplier"]["attributes"]
            for name, value in kept.items():
                setattr(multiplier, name, value)
        return multiplier


def _ends(history: Sequence[LogEntry], best: int | None) -> tuple[LogEntry, LogEntry | None]:
    """What was scored before training, and of the best adapter."""
    scored = [entry for entry in history if "eval_loss" in entry.model_fields_set]
    return scored[0], next((entry for entry in scored[1:] if entry.step == best), None)


def _effects(before: LogEntry, after: LogEntry) -> Effects:
    changes = {}
    for name in Effects.model_fields:
        values = [getattr(entry, f"eval_{name}") for entry in (before, after)]
        if None not in values:
            changes[name] = Change(before=values[0], after=values[1])
    return Effects(**changes)


def prepare(
    network: nn.Module,
    tokenizer: Any,
    config: PeftConfig,
    options: TrainingOptions,
    examples: Examples,
    evaluated: Examples,
    out: Path,
    resume: bool = False,
    reference: Reference | None = None,
    tracked: TrackFeatures | None = None,
    write_plan: Callable[[], object] = lambda: None,
) -> Prepared:
    """Get ready to train an adapter; see :func:`make_trainer` for the arguments.

    Checkpoints lie in ``out/checkpoints`` meanwhile; with ``resume`` it goes on from the last one,
    to what an uninterrupted training gives. ``write_plan`` may write into ``out`` what that needs;
    where the training is refused, that is taken back.

    Raises:
        InputError: no example is left within ``max_length``.

    """
    folder = out / CHECKPOINTS
    last = _last_checkpoint(folder) if resume else None
    with quiet_training(), _removed_if_refused(out):
        write_plan()
        trainer = make_trainer(
            network,
            tokenizer,
            config,
            options,
            examples,
            evaluated,
            folder,
            reference,
            last is not None,
            tracked,
        )
        if reference is not None and reference.budgeted is not None:
            Amplitude(trainer.model).check()
    return Prepared(trainer, options, reference, last)


def save(trained: Trained, out: Path) -> None:
    """Write the adapter into ``out``."""
    part = out / f".{CHECKPOINTS}-adapter"
    with quiet_training():
        trained.model.save_pretrained(str(part))
    for file in sorted(part.iterdir()):
        write_atomically(out / file.name, partial(shutil.copyfile, file))
    shutil.rmtree(part)


def remove_checkpoints(out: Path) -> None:
    """Remove what an interrupted training would need; what TRL logged for TensorBoard stays."""
    logs = out / CHECKPOINTS / _LOGS
    if logs.is_dir():
        shutil.copytree(logs, out / _LOGS, dirs_exist_ok=True)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


@contextmanager
def _removed_if_refused(out: Path) -> Iterator[None]:
    there = out.exists()
    before = set(out.iterdir()) if there else set()
    try:
        yield
    except InputError:
        for path in set(out.iterdir()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not there:
            out.rmdir()
        raise


def _not_finite(loss: object, options: TrainingOptions) -> NotFiniteError:
    return NotFiniteError(
        f"the held-out loss is not finite: {loss}; expected a number; lower --learning-rate "
        f"{options.learning_rate:g}, and give another --out"
    )


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _last_checkpoint(folder: Path) -> tuple[Path, Any] | None:
    """The last whole checkpoint and the trainer's state there."""
    checkpoints = folder.glob("checkpoint-*")
    for path in sorted(checkpoints, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        with suppress(OSError, ValueError):
            return path, TrainerState.load_from_json(str(path / "trainer_state.json"))
    return None


def _is_at_end(state: Any) -> bool:
    return bool(state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"])


def n_trainable(model: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
