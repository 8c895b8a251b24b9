"""Losses that begin at a layer are those of whole passes; where they are not, all passes are whole."""

from pathlib import Path
from typing import Any

import families
import lessons
import pytest
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.auditing.gates import gated
from cleansteer.auditing.replay import Replay
from cleansteer.auditing.task import losses
from peft import get_peft_model
from torch import Tensor, nn

PLACES = ("blocks.2.hook_resid_pre", "blocks.1.hook_mlp_out")
FAMILIES = [*families.FAMILIES, families.UNKNOWN]
TEXTS = torch.tensor([True, False, True, True])


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sae")
    for hook in PLACES:
        world.save_sae(tiny.sae("standard", hook), folder / hook)
    return folder


def adapted(network: nn.Module, sae: Path, hook: str) -> Any:
    target = {"hook": hook, "sae": {"path": str(sae / hook)}, "features": None}
    model = get_peft_model(network, SaeAdapterConfig(targets=[target], component="bias"))
    lessons.disturb(model)
    return model.eval()


def batch() -> dict[str, Tensor]:
    ids = tiny.contexts(4, 11)
    mask = torch.ones_like(ids)
    mask[1, 7:] = mask[3, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def seen(layer: nn.Module) -> list[int]:
    """How many passes a layer's inside has seen."""
    counts: list[int] = []
    inside = next(
        module for module in layer.modules() if isinstance(module, nn.Linear | nn.LayerNorm)
    )
    inside.register_forward_hook(lambda *_: counts.append(1))
    return counts


@pytest.mark.parametrize("number", range(len(FAMILIES)), ids=FAMILIES)
def test_they_are_those_of_whole_passes(number: int, sae: Path) -> None:
    family, hook = FAMILIES[number], PLACES[number % 2]
    model, given = adapted(families.network(family, torch.float32), sae, hook), batch()
    some = {name: values[TEXTS] for name, values in given.items()}
    with gated(model, [hook]) as gates:
        replay = Replay(model, [hook], losses)
        whole = replay.begin(given)
        torch.testing.assert_close(whole, losses(model, given))
        gates[hook].open[3] = 0.0
        again = replay.again(given, TEXTS)
        torch.testing.assert_close(again, losses(model, some), rtol=1e-5, atol=1e-4)
        assert not torch.allclose(again, whole[TEXTS], rtol=1e-5, atol=1e-3)
    assert replay._works
    assert all("forward" not in vars(module) for module in model.modules())


def test_layers_in_front_are_passed_over(sae: Path) -> None:
    network, given = tiny.network(), batch()
    counts = [seen(layer) for layer in network.transformer.h]
    model = adapted(network, sae, PLACES[0])
    before = [len(each) for each in counts]  # the place was proven
    replay = Replay(model, [PLACES[0]], losses)
    replay.begin(given)
    for _ in range(3):
        replay.again(given, TEXTS)
    passes = [len(each) - first for each, first in zip(counts, before, strict=True)]
    assert passes == [1, 1, 5, 5]


class _Handed(nn.Module):
    """A layer that adds what another one has left for it beside the stream."""

    def __init__(self, layer: nn.Module, left: list[Tensor]) -> None:
        super().__init__()
        self.layer, self.left = layer, left

    def forward(self, stream: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = self.layer(stream, *args, **kwargs)
        return out + 0.5 * self.left[0] if self.left[0].shape == out.shape else out


def test_a_model_whose_layers_hand_each_other_more_is_not_cut_short(sae: Path) -> None:
    network, given = tiny.network(), batch()
    left: list[Tensor] = [torch.zeros(())]
    layers = network.transformer.h

    def leave(_: Any, inputs: Any, output: Any) -> None:
        inside = output[0] if isinstance(output, tuple) else output
        left[0] = inside - inputs[0]

    layers[0].register_forward_hook(leave)
    model = adapted(network, sae, PLACES[0])
    base = model.get_base_model().transformer.h
    base[3] = _Handed(base[3], left)
    with gated(model, [PLACES[0]]) as gates:
        replay = Replay(model, [PLACES[0]], losses)
        replay.begin(given)
        assert not replay._works
        gates[PLACES[0]].open[3] = 0.0
        some = {name: values[TEXTS] for name, values in given.items()}
        torch.testing.assert_close(replay.again(given, TEXTS), losses(model, some))
