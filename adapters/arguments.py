"""TRL's configurations with defaults that fit adapters on SAE latents."""

from dataclasses import dataclass, field

import trl

from ..core.training import TrainingOptions

_DEFAULTS = TrainingOptions()


@dataclass
class _Fitting:
    learning_rate: float = field(
        default=_DEFAULTS.learning_rate,
        metadata={
            "help": "AdamW's at the start. TRL's own, made for weights of whole models, moves what an "
            "adapter on latents has next to nowhere."
        },
    )
    per_device_train_batch_size: int = field(
        default=_DEFAULTS.batch_size, metadata={"help": "Examples in a forward pass."}
    )
    bf16: bool | None = field(
        default=False,
        metadata={
            "help": "Mixed precision. Off, so that the adapter that is saved gives the loss that was "
            "measured."
        },
    )
    max_grad_norm: float = field(
        default=0.0,
        metadata={
            "help": "Longest gradient, 0: any. What is clipped is the gradient of the loss and not the "
            "penalty of `sparse`, which would then weigh more than its l1 says."
        },
    )
    gradient_checkpointing: bool = field(
        default=_DEFAULTS.gradient_checkpointing,
        metadata={"help": "Compute every layer twice, which saves memory."},
    )


@dataclass
class SFTConfig(_Fitting, trl.SFTConfig):  # type: ignore[misc]
    """``trl.SFTConfig`` with the defaults of ``cleansteer train``: a learning rate of 0.03, no mixed
    precision, no clipped gradients, no layers computed twice; every other one is TRL's.
    """


@dataclass
class DPOConfig(_Fitting, trl.DPOConfig):  # type: ignore[misc]
    """``trl.DPOConfig`` likewise."""
