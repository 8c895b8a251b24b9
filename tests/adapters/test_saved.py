"""Saved adapters: loaded where their tensors are exactly their own, and refused elsewhere."""

from collections.abc import Callable
from pathlib import Path

import adapted
import pytest
import torch
from cleansteer.core.errors import InputError
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
HOOKS = ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out")


@pytest.fixture(params=["default", "another"])
def saved(request: pytest.FixtureRequest, shelf: Path, tmp_path: Path) -> tuple[Path, str]:
    """The directory of an adapter, and the name that it is loaded under."""
    config = adapted.adapter([adapted.target(shelf, hook) for hook in HOOKS], "lerp")
    adapted.adapt(adapted.network(), config).save_pretrained(tmp_path)
    return tmp_path, request.param


def rewrite(folder: Path, change: Callable[[Tensors, str], Tensors]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(change(tensors, max(tensors)), path)


CHANGES: dict[str, tuple[Callable[[Tensors, str], Tensors], str]] = {
    "missing": (lambda t, name: {k: v for k, v in t.items() if k != name}, "1 tensor missing"),
    "all missing": (lambda t, name: {}, "4 tensors missing"),
    "unknown": (lambda t, name: t | {f"{name}_2": t[name].clone()}, "1 tensor not known to it"),
    "misshapen": (lambda t, name: t | {name: t[name][:-1].clone()}, "1 tensor of another shape"),
    "prefixed": (
        lambda t, name: {f"_orig_mod.{k}": v for k, v in t.items()},
        "4 tensors missing",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_other_tensors_are_refused(case: str, saved: tuple[Path, str]) -> None:
    folder, adapter = saved
    change, expected = CHANGES[case]
    rewrite(folder, change)
    with pytest.raises(InputError, match=expected) as caught:
        PeftModel.from_pretrained(adapted.network(), folder, adapter_name=adapter)
    assert "\n" not in str(caught.value)


def test_beside_another_adapter_only_its_own_count(saved: tuple[Path, str], shelf: Path) -> None:
    folder, adapter = saved
    config = adapted.adapter([adapted.target(shelf, HOOKS[0])], "bias")
    model = adapted.adapt(adapted.network(), config)
    model.load_adapter(folder, "beside")
    model.set_adapter("beside")
    alone = PeftModel.from_pretrained(adapted.network(), folder, adapter_name=adapter)
    assert torch.equal(adapted.logits(model), adapted.logits(alone))
    rewrite(folder, CHANGES["missing"][0])
    with pytest.raises(InputError, match="'third': its weights have 1 tensor missing"):
        model.load_adapter(folder, "third")
