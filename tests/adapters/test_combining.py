"""Weighted sums of adapters, and a batch whose rows have different ones."""

from pathlib import Path
from typing import Any

import adapted
import pytest
import tiny
import torch
from cleansteer.core.errors import InputError
from peft import PeftModel
from torch import Tensor

ENTRY, MLP = "blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out"
OTHERS = [3, 4, 40, 90]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def two(shelf: Path, component: str, **second: Any) -> Any:
    """A model with adapters 'default' and 'other', of features that overlap."""
    architecture = second.pop("architecture", "standard")
    config = adapted.adapter(
        [adapted.target(shelf, ENTRY, architecture), adapted.target(shelf, MLP)], component
    )
    model = adapted.adapt(adapted.network(), config)
    target = adapted.target(shelf, ENTRY, architecture, second.pop("features", OTHERS))
    model.add_adapter("other", adapted.adapter([target], second.pop("kind", component), **second))
    adapted.randomise(model, "other", 8)
    return model


def edits_at(model: Any, adapter: str, watched: list[tuple[Tensor, Tensor]], hook: int) -> Tensor:
    """What an adapter adds at its first or second place, in a model whose first layers are untouched."""
    watched.clear()
    model.set_adapter(adapter)
    adapted.logits(model)
    before, after = watched[hook]
    return after - before


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("component", ["bias", "scale"])
def test_a_weighted_sum_is_the_sum_of_edits(
    component: str, architecture: str, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    model = two(shelf, component, architecture=architecture)
    first, second = (edits_at(model, name, watched, 0) for name in ("default", "other"))
    model.add_weighted_adapter(["default", "other"], [0.5, -2.0], "both")
    assert model.active_adapter == "other"
    parameters = adapted.parameters(model, "both")
    assert len(parameters) == 2
    assert not any(parameter.requires_grad for parameter in parameters.values())
    both = edits_at(model, "both", watched, 0)
    torch.testing.assert_close(both, 0.5 * first - 2 * second, **CLOSE)
    assert first.abs().max() > 0.05
    assert second.abs().max() > 0.05


@pytest.mark.parametrize("component", ["bias", "scale"])
def test_one_adapter_weighted_by_one_is_itself(component: str, shelf: Path) -> None:
    model = two(shelf, component)
    model.add_weighted_adapter(["default"], [1.0], "same")
    model.add_weighted_adapter(["default"], [0.0], "none")
    outputs = []
    for name in ("default", "same", "none"):
        model.set_adapter(name)
        outputs.append(adapted.logits(model))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[2], adapted.base_logits("gpt2"))
    assert not torch.equal(outputs[0], outputs[2])


def test_a_weighted_sum_is_saved_and_opened(shelf: Path, tmp_path: Path) -> None:
    model = two(shelf, "bias", features=None)
    model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "both")
    model.set_adapter("both")
    model.save_pretrained(tmp_path, selected_adapters=["both"])
    again = PeftModel.from_pretrained(adapted.network(), tmp_path / "both")
    assert torch.equal(adapted.logits(again), adapted.logits(model))


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "lerp": ({"kind": "lerp"}, {}, "component 'lerp' is not linear"),
    "mixed": ({"kind": "scale"}, {}, "differ in component: 'bias' and 'scale'"),
    "positions": ({"positions": "last"}, {}, "differ in positions"),
    "svd": ({}, {"combination_type": "svd"}, "combination_type is 'svd'"),
    "unknown": ({}, {"adapters": ["default", "third"]}, "adapter 'third' is not there"),
    "taken": ({}, {"adapter_name": "other"}, "an adapter named 'other' already"),
    "weights": ({}, {"weights": [1.0]}, r"weights \[1.0\]"),
    "nan": ({}, {"weights": [1.0, float("nan")]}, "expected a finite number"),
    "none": ({}, {"adapters": [], "weights": []}, "of at least one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_combined_is_refused(case: str, shelf: Path) -> None:
    second, given, message = REFUSED[case]
    model = two(shelf, "bias", **second)
    asked = {"adapters": ["default", "other"], "weights": [1.0, 1.0], "adapter_name": "both"}
    with pytest.raises(InputError, match=message):
        model.add_weighted_adapter(**(asked | given))
    assert set(model.peft_config) == {"default", "other"}


def test_adapters_of_different_saes_are_refused(shelf: Path) -> None:
    config = adapted.adapter([adapted.target(shelf, ENTRY)], "bias")
    model: Any = adapted.adapt(adapted.network(), config)
    target = adapted.target(shelf, ENTRY, seed=4)
    model.add_adapter("other", adapted.adapter([target], "bias"))
    with pytest.raises(InputError, match="through SAEs of fingerprints"):
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "both")


# Rows


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("component", ["bias", "lerp", "mlp"])
def test_every_row_has_its_own_adapter(component: str, positions: str, shelf: Path) -> None:
    model = two(shelf, component, positions=positions).eval()
    names = ["other", "__base__", "default", "other"]
    mixed = model(adapted.TOKENS, adapter_names=names).logits
    for row, name in enumerate(names):
        ids = adapted.TOKENS[row : row + 1]
        if name == "__base__":
            expected = adapted.base_logits("gpt2")[row : row + 1]
        else:
            model.set_adapter(name)
            expected = model(ids).logits
        torch.testing.assert_close(mixed[row : row + 1], expected, **CLOSE)
    model.set_adapter("default")
    assert torch.equal(
        model(adapted.TOKENS).logits, model(adapted.TOKENS, adapter_names=None).logits
    )
    assert not torch.allclose(mixed[0], mixed[2], atol=0.01)


@pytest.mark.parametrize("beams", [1, 3])
def test_rows_are_generated_each_with_its_own(beams: int, shelf: Path) -> None:
    model = two(shelf, "bias").eval()
    names, options = ["default", "other", "__base__"], {"max_new_tokens": 6, "do_sample": False}
    ids = adapted.TOKENS[:3]
    found = model.generate(input_ids=ids, adapter_names=names, num_beams=beams, **options)
    for row, name in enumerate(names[:2]):
        model.set_adapter(name)
        alone = model.generate(input_ids=ids[row : row + 1], num_beams=beams, **options)
        assert torch.equal(found[row, : alone.shape[1]], alone[0])
    base = adapted.network().generate(input_ids=ids[2:], num_beams=beams, **options)
    assert torch.equal(found[2, : base.shape[1]], base[0])


def test_names_that_do_not_fit_are_refused(shelf: Path) -> None:
    model = two(shelf, "bias").eval()
    with pytest.raises(InputError, match="adapter_names has 'third'"):
        model(adapted.TOKENS, adapter_names=["third"] * 4)
    with pytest.raises(InputError, match="adapter_names has 3 names"):
        model(adapted.TOKENS, adapter_names=["other"] * 3)
    with pytest.raises(InputError, match="while training"):
        model.train()(adapted.TOKENS, adapter_names=["other"] * 4)
    # And nothing of them is left.
    assert model.eval()(adapted.TOKENS).logits.shape[0] == 4
