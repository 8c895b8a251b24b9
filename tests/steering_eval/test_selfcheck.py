"""The self-check tells a wrong pass from rounding, however large a model's activations are."""

from collections.abc import Callable
from typing import Any

import families
import numpy as np
import pytest
import tiny
import torch
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.sites import parse_site
from cleansteer.steering_eval.choice import plan_all
from cleansteer.steering_eval.families import find_blocks
from cleansteer.steering_eval.rerun import FullForward
from cleansteer.steering_eval.resume import ResumedForward
from cleansteer.steering_eval.selfcheck import PassComparison
from cleansteer.steering_eval.vocabulary import VocabularyReader
from cleansteer.study.steering import SPOT_TOLERANCE
from torch import nn

TOLERANCE = SPOT_TOLERANCE["float32"]
SIZES = (1.0, 1000.0)
"""How many times as long the stream is as the family's tiny model has it."""
_WRITING = ("wte", "wpe", "embed_in", "embed_tokens", "c_proj", "o_proj", "dense", "down_proj")
_WRITING_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


def model_of(family: str, size: float) -> LanguageModel:
    """A tiny model of which all that is written to the stream is so many times as long."""
    network: Any = families.network(family, torch.float32)
    for name, parameter in network.named_parameters():
        part = name.split(".")[-2]
        if family == "gemma2":
            if part in _WRITING_NORMS:  # Gemma keeps weight - 1
                parameter.data = size * (1 + parameter.data) - 1
            elif part == "embed_tokens":
                parameter.data *= size
        elif part in _WRITING or part == "dense_4h_to_h":
            parameter.data *= size
    return wrap_model(network, tiny.tokenizer())


def difference(model: LanguageModel, blocks: Any) -> float:
    """Of passes that are pushed by as much as a decoder row is long: 1."""
    site, tap = (parse_site(f"blocks.{layer}.hook_resid_pre", 4) for layer in (1, 3))
    contexts = tiny.contexts()[:3]
    plan = plan_all(np.arange(3), len(contexts))
    generator = torch.Generator().manual_seed(0)
    pushes = nn.functional.normalize(torch.randn(3, tiny.WIDTH, generator=generator), dim=1)
    comparison = PassComparison(
        model,
        ResumedForward(model, blocks, site),
        FullForward(model, site),
        tap,
        VocabularyReader.of_model(model),
    )
    return comparison.largest_difference(plan, contexts, pushes, 3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_rounding_is_no_error(family: str, size: float) -> None:
    model = model_of(family, size)
    assert difference(model, find_blocks(model)) < TOLERANCE / 10


class Wrong:
    """A family's blocks of which one method gives something else."""

    def __init__(self, blocks: Any, name: str, change: Callable[[Any], Any]) -> None:
        self._blocks, self._name, self._change = blocks, name, change

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._blocks, name)
        if name != self._name:
            return found
        return lambda *given: self._change(found(*given))


def turned(blocks: Any, rotary: Any) -> Any:
    """Heads are turned by 3 % more."""
    rotary._frequencies.inv_freq *= 1.03
    return blocks


MUTATIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "window": ("mistral", lambda b: Wrong(b, "window", lambda window: window + 1)),
    "rope": ("llama", lambda b: turned(b, b._rotaries[0])),
    "rope of a part": ("gpt_neox", lambda b: turned(b, b._rotary)),
    "cap of attention": ("gemma2", lambda b: Wrong(b, "soft_cap", lambda cap: 1.05 * cap)),
    "scale of attention": ("gpt2", lambda b: Wrong(b, "scale", lambda scale: 1.03 * scale)),
    "norm behind the MLP": ("gemma2", lambda b: Wrong(b, "mlp", lambda added: 1.03 * added)),
    "final norm": ("llama", lambda b: Wrong(b, "normalise", lambda normed: 1.03 * normed)),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_pass_that_is_wrong_by_a_few_per_cent_is_found(mutation: str, size: float) -> None:
    family, change = MUTATIONS[mutation]
    model = model_of(family, size)
    blocks = find_blocks(model)
    assert not difference(model, change(blocks)) < TOLERANCE
