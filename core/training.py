"""How an adapter is trained."""

from typing import Annotated, Literal

from pydantic import Field

from .settings import SettingSection

Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class TrainingOptions(SettingSection):
    """Everything that determines what training gives, beside the model, the adapter and the data."""

    objective: Literal["sft", "dpo"] = "sft"
    """Supervised fine-tuning, or direct preference optimisation (arXiv:2305.18290)."""
    learning_rate: Positive = 3e-2
    """Of AdamW, at the start; it falls linearly to 0. Weight decay is 0."""
    epochs: Positive = 3.0
    """Passes over the examples."""
    max_steps: Count | None = None
    """Optimiser steps, in place of ``epochs``."""
    batch_size: Count = 8
    """Examples a forward pass."""
    accumulation: Count = 1
    """Forward passes an optimiser step."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Most tokens of an example; no more than the model takes."""
    bos: bool = True
    """Whether BOS stands in front of every example, as in the contexts of a screening (see
    :func:`cleansteer.adapters.examples.begun`); False: where the tokenizer puts it alone."""
    beta2: Fraction = 0.999
    """Of AdamW; see :func:`cleansteer.adapters.selection.fitting_beta2`."""
    dpo_beta: Positive = 0.1
    """Beta of DPO: how strongly the policy is held to the reference."""
    l1: Weight = 0.0
    """Weight of the edit's L1 norm (see :func:`cleansteer.adapters.penalties.edit_size`)."""
    drift: Weight = 0.0
    """Weight of the drift of other latents (see :class:`cleansteer.adapters.penalties.Drift`)."""
    evaluations: Count = 10
    """How often held-out examples are scored while training, evenly; a checkpoint each time."""
    patience: Count | None = None
    """Evaluations without improvement after which training stops; None: never."""
    gradient_checkpointing: bool = False
    """Whether layers are computed twice to save memory."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the order of examples and of dropout."""
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    """Where TRL sends its logs."""
