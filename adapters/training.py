"""Training over TRL."""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from torch import nn
from transformers import TrainerState

from ..core.errors import InputError
from ..core.records.training import LogEntry, Losses
from ..core.tables import write_atomically
from ..core.training import TrainingOptions
from .encoding import Encoded
from .examples import Examples
from .penalties import Drift
from .trainers import ADAPTER, make_trainer, quiet_training, tell_steps

CHECKPOINTS = "checkpoints"
_LOGS = "runs"
_LOGGED = ("step", "loss", "eval_loss")


@dataclass(frozen=True)
class Trained:
    """What training gave."""

    model: PeftModel
    """The model with the best adapter of all evaluations."""
    losses: Losses
    """On held-out examples, before training and of the best adapter."""
    history: list[LogEntry]
    """What was logged; None where it was not finite."""
    n_steps: int
    """Optimiser steps that were done."""
    encoded: tuple[Encoded, Encoded]
    """Examples trained on and scored, as tokens."""


@dataclass(frozen=True)
class Prepared:
    """A training that can begin, or go on: model, adapter and data are ready."""

    trainer: Any
    """TRL's, with our penalties."""
    options: TrainingOptions
    last: tuple[Path, Any] | None = None
    """The checkpoint to go on from, and the trainer's state there; None: from the start."""

    def run(self, tick: Callable[[int], object] = lambda _: None) -> Trained:
        """Train, and take the best adapter of all evaluations.

        Args:
            tick: called with the number of steps done.

        Raises:
            InputError: the loss is not finite.

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
        history = [
            LogEntry.model_validate({k: _finite(entry[k]) for k in _LOGGED if k in entry})
            for entry in trainer.state.log_history
            if "loss" in entry or "eval_loss" in entry
        ]
        before = next(e.eval_loss for e in history if "eval_loss" in e.model_fields_set)
        after = _finite(trainer.state.best_metric)
        if before is None or after is None:
            raise _not_finite(trainer.state.best_metric, self.options)
        losses, n_steps = Losses(before=before, after=after), int(trainer.state.global_step)
        return Trained(trainer.model, losses, history, n_steps, trainer.encoded)


def prepare(
    network: nn.Module,
    tokenizer: Any,
    config: PeftConfig,
    options: TrainingOptions,
    examples: Examples,
    evaluated: Examples,
    out: Path,
    resume: bool = False,
    drift: Drift | None = None,
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
            drift,
            last is not None,
        )
    return Prepared(trainer, options, last)


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


def _not_finite(loss: object, options: TrainingOptions) -> InputError:
    return InputError(
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
