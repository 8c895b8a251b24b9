"""Small random models with the layers of one that has no values."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..core.errors import InputError
from ..core.networks import quiet_libraries
from ..core.small import shrink

_ROPE = ("rope_parameters", "rope_scaling")


def sketch(model: Any, hook: str) -> nn.Module:
    """A random model of the class and configuration of another, as many layers, but narrow: what its
    modules do with each other is the same.

    Args:
        model: a Hugging Face causal language model, maybe on the meta device.
        hook: for messages.

    Raises:
        InputError: its class cannot be made small.

    """
    refused: Exception | None = None
    for config in _configs(model.config):
        try:
            with quiet_libraries(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made: Any = type(model)(config())
                for parameter in made.parameters():
                    parameter.data += 0.1 * torch.randn_like(parameter)
                made = made.float().eval()
                made(input_ids=torch.arange(8)[None], use_cache=False)
        except Exception as error:  # whatever a class does with small sizes
            refused = refused or error
        else:
            small: nn.Module = made
            return small
    told = " ".join(str(refused).split())[:120]
    raise InputError(
        f"hook {hook}: a {type(model).__name__} without weights cannot be tried out ({told}); expected "
        "one that can be made small; give the model with its weights"
    )


def _configs(config: Any) -> Iterator[Any]:
    """Small configurations: with the model's rotary embedding, and with its class' own, since factors
    of that may be as many as a head is wide.
    """
    for without in ((), _ROPE):
        yield lambda without=without: shrink(
            config,
            {},
            lambda each: each,
            lambda given: {name: value for name, value in given.items() if name not in without},
            {},
        )
