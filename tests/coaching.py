"""Trainers on lessons: as TRL's documentation has them, and ours."""

from pathlib import Path
from typing import Any

import lessons
import tiny
import torch
from cleansteer.adapters import Target
from cleansteer.adapters.examples import gather
from cleansteer.adapters.model import load_target
from cleansteer.adapters.reference import Drift, Reference, reference_rows, values_at
from cleansteer.adapters.trainers import make_trainer
from cleansteer.core.training import TrainingOptions
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

CALM = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def plain(objective: str, folder: Path, path: Path, component: str = "mlp", **more: Any) -> Any:
    """A trainer as TRL's documentation has it."""
    trainer, arguments = {"sft": (SFTTrainer, SFTConfig), "dpo": (DPOTrainer, DPOConfig)}[objective]
    options, changes = more.pop("options", {}), more.pop("arguments", {})
    config = more.pop("config", None) or lessons.config(path, component, **options)
    return trainer(
        model=tiny.network(),
        args=arguments(
            **{
                "output_dir": str(folder),
                "learning_rate": 0.05,
                "max_steps": 12,
                "per_device_train_batch_size": 8,
                "eval_strategy": "steps",
                "eval_steps": 4,
                "logging_steps": 4,
                "save_strategy": "no",
                "report_to": "none",
                "bf16": False,
                "use_cpu": True,
            }
            | changes
        ),
        train_dataset=Dataset.from_list(lessons.ROWS[objective](24)),
        eval_dataset=Dataset.from_list(lessons.ROWS[objective](6, seed=9)),
        processing_class=tiny.tokenizer(),
        peft_config=config,
        **more,
    )


def trained(trainer: Any) -> Any:
    with torch.enable_grad():
        trainer.train()
    trainer.model.eval()
    return trainer.model


def logged(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def adapter_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def our_trainer(
    path: Path,
    folder: Path,
    options: TrainingOptions,
    component: str = "mlp",
    rows: lessons.Rows | None = None,
    held: lessons.Rows | None = None,
    weighted: bool = False,
    reference: Reference | None = None,
    **component_options: float,
) -> Any:
    """A trainer on texts of one length, of a model without dropout."""
    network = tiny.network(**CALM).requires_grad_(False)
    texts = {"sft": lambda: lessons.texts(8, 0, 6, 6), "dpo": lambda: alike(8)}[options.objective]
    config = lessons.config(path, component, **component_options)
    if weighted:
        texts_there = [row["text"] for row in lessons.texts(6)]
        reading = reference_rows(network, tiny.tokenizer(), texts_there, 64)
        whole = load_target(Target.parse(config.targets[0]).with_features(None), network).part
        values = values_at(network, lessons.HOOK, reading)
        reference = Reference(
            reading, {lessons.HOOK: Drift(values, whole, lessons.ACTIVE, options.seed)}
        )
    given = gather(rows or texts())
    held_out = gather(held or lessons.ROWS[options.objective](4, seed=9))
    return make_trainer(
        network, tiny.tokenizer(), config, options, given, held_out, folder, reference
    )


def alike(count: int) -> lessons.Rows:
    """Preferences of one length."""
    drawn = [lessons.texts(count, seed, 3, 3, 300) for seed in range(3)]
    return [
        {"prompt": a["text"], "chosen": " " + b["text"], "rejected": " " + c["text"]}
        for a, b, c in zip(*drawn, strict=True)
    ]
