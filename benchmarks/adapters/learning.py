"""Training one adapter, and the edits on its way."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peft import IA3Config, LoraConfig, PeftConfig, TaskType
from torch import Tensor
from transformers import TrainerCallback

from ...adapters.config import Target
from ...adapters.examples import Examples
from ...adapters.trainers import baseline_config, make_trainer, quiet_training
from ...core.saes import hook_of, open_sae
from ...core.sections import SaeSetting
from ...core.settings import Setting
from ...core.training import TrainingOptions

_LORA_RANK = 8


class Waypoints(TrainerCallback):  # type: ignore[misc]
    """Keeps what is trained after some of the steps.

    Args:
        steps: optimiser steps.

    """

    def __init__(self, steps: Sequence[int]) -> None:
        self._steps = steps
        self.kept: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step in self._steps:
            self.kept[state.global_step] = trained(others["model"])


def trained(model: Any) -> dict[str, Tensor]:
    """Copies of the parameters that are trained."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def learn(
    network: Any,
    tokenizer: Any,
    config: PeftConfig,
    options: TrainingOptions,
    examples: Examples,
    steps: Sequence[int],
) -> tuple[Any, dict[int, dict[str, Tensor]]]:
    """Train with the product's own trainer; the model, and its parameters after some steps.

    Args:
        network: without adapters; it is changed.
        tokenizer: its tokenizer.
        config: of the adapter.
        options: how to train.
        examples: to train on.
        steps: after which parameters are kept.

    """
    waypoints = Waypoints(steps)
    with TemporaryDirectory() as folder, quiet_training():
        trainer = make_trainer(
            network, tokenizer, config, options, examples, None, Path(folder) / "checkpoints"
        )
        trainer.add_callback(waypoints)
        trainer.train()
        return trainer.model.eval(), waypoints.kept


def target_of(setting: Setting, which: SaeSetting) -> Target:
    """An SAE of a setting, whole, at its place."""
    sae, fingerprint = open_sae(which, setting.folder)
    return Target.of(which, setting.folder, hook_of(sae, which), None, fingerprint)


def baseline(name: str, layer: int) -> PeftConfig:
    """PEFT's own: ``lora`` on all layers, ``lora-layer`` of rank 1 on one, ``ia3``."""
    if name == "lora-layer":
        return LoraConfig(
            r=1, lora_alpha=2, task_type=TaskType.CAUSAL_LM, layers_to_transform=[layer]
        )
    if name == "ia3":
        return IA3Config(task_type=TaskType.CAUSAL_LM)
    return baseline_config("lora", _LORA_RANK)
