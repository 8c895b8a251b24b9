"""How an adapter is trained."""

from typing import Annotated

from pydantic import Field

from .choices import Objective, ReportTo, Tokens
from .settings import SettingSection

Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

BASELINE_LEARNING_RATE = 0.01
"""The default ``learning_rate`` of a baseline."""
COMPONENT_LEARNING_RATES = {"sparse": 0.003}
"""The default ``learning_rate`` of components of which many parameters move together."""


class TrainingOptions(SettingSection):
    """Everything that determines what training gives, beside the model, the adapter and the data.

    The texts of the fields are the help of ``cleansteer train``.
    """

    objective: Objective = "sft"
    """Supervised fine-tuning (sft) or direct preference optimisation (dpo, arXiv:2305.18290)."""
    learning_rate: Positive = 3e-2
    """AdamW's learning rate at the start; it falls linearly to 0. Weight decay is 0."""
    epochs: Positive = 3.0
    """Passes over the data."""
    max_steps: Count | None = None
    """Optimiser steps, in place of the epochs."""
    batch_size: Count = 8
    """Examples in a forward pass."""
    accumulation: Count = 1
    """Forward passes in an optimiser step."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Most tokens of an example that are used; never more than the model takes."""
    bos: bool = True
    """Begin every example with BOS, once (EOS where the tokenizer has none; conversations then begin
    as the chat template has it), as in the contexts of a screening; otherwise with nothing that is
    not written in it, whatever the tokenizer adds."""
    completion_only: bool = True
    """Learn and score completions alone, of messages the assistant's turns; otherwise all tokens. DPO
    always compares completions."""
    beta2: Fraction = 0.999
    """AdamW's beta2, the decay of its mean of squared gradients."""
    dpo_beta: Positive = 0.1
    """How strongly DPO holds the model to its reference."""
    l1: Weight = 0.0
    """Weight in the loss of the edit's L1 norm: sum over allowed latents, mean over tokens."""
    drift: Weight = 0.0
    """Weight in the loss of how far all other latents move on the reference texts: a sum over all of
    them, so that weights are small, such as 0.001."""
    kl_budget: Positive | None = None
    """Learn as much as can be while KL(without || with the adapter) of the next token on the reference
    texts stays within so many nats a token; by default there is no such bound."""
    positions: Tokens = "all"
    """Tokens that the adapter edits: all; completion: those that are learned, in generation those behind
    the prompt; last: those from which the next is learned, in generation drawn."""
    edit_bos: bool = True
    """Let the adapter edit BOS at the start as well."""
    evaluations: Count = 10
    """How often held-out examples are scored while training, evenly spaced; a checkpoint each
    time."""
    log_steps: Count | None = None
    """Optimiser steps between two entries of the log and of what features are doing; by default as many
    as between two evaluations."""
    patience: Count | None = None
    """Stop after this many evaluations without improvement; by default never."""
    gradient_checkpointing: bool = False
    """Compute every layer twice, which saves memory."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the held-out share, the order of examples, dropout and the adapter's initial
    values."""
    report_to: ReportTo = "none"
    """Where TRL sends its logs."""
