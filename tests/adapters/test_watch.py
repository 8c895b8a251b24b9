"""Sizes of edits: what a watch sees."""

from pathlib import Path

import families
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.components.component import Component
from cleansteer.adapters.layer import find_layer
from cleansteer.adapters.objective import ADAPTER
from cleansteer.adapters.watch import watching
from peft import get_peft_model
from torch import Tensor

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}
"""Float32 in another order of summation."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


def batch(*lengths: int) -> tuple[Tensor, Tensor]:
    """Contexts padded on the right, and their mask."""
    ids = tiny.contexts(len(lengths), max(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


@pytest.mark.parametrize("component", ["scale", "lerp", "mlp", "sparse", "switch"])
def test_sizes_are_of_tokens_that_count(component: str, path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path, component))
    lessons.disturb(model)
    ids, mask = batch(7, 4, 1)
    with torch.enable_grad(), watching(model) as watch:
        model(ids, attention_mask=mask, use_cache=False)
    # By hand: what the model without padding shows at the site, through SAELens and the component.
    made = tiny.sae("standard", lessons.HOOK)
    layer, place = find_layer(model, lessons.HOOK)
    edit = getattr(layer, f"cleansteer_{place}")[ADAPTER]
    sizes = []
    for row, length in zip(ids, (7, 4, 1), strict=True):
        x = families.read_all(lessons.network(), row[None, :length], lessons.HOOK)[0]
        # 'auto': centred where the model's norms are.
        part = getattr(layer, f"slice_{place}")[ADAPTER]
        x = x - x.mean(dim=-1, keepdim=True) if part.centred else x
        sizes.append(edit(made.encode(x)[:, lessons.ACTIVE]).abs().sum(dim=-1))
    expected = torch.cat(sizes).mean()
    assert expected > 0.01
    torch.testing.assert_close(watch.edit_size(mask), expected, **ROUNDING)
    assert watch.edit_size(None) > 0
    assert watch.edit_size(None) != watch.edit_size(mask)


@pytest.mark.parametrize("shape", [(3, 6), (2, 7), (21,)])
def test_a_mask_that_does_not_fit_is_an_error(shape: tuple[int, ...], path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path))
    lessons.disturb(model)
    with torch.enable_grad(), watching(model) as watch:
        model(batch(7, 4, 1)[0], use_cache=False)
    with pytest.raises(ValueError, match=r"does not fit edits at \(3, 7\) tokens"):
        watch.edit_size(torch.ones(shape))


def test_what_does_not_read_has_one_size(path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path, "bias"))
    lessons.disturb(model)
    ids, mask = batch(5, 3)
    with torch.enable_grad(), watching(model) as watch:
        model(ids, attention_mask=mask, use_cache=False)
    (bias,) = (p for p in model.parameters() if p.requires_grad)
    torch.testing.assert_close(watch.edit_size(mask), bias.abs().sum())


def test_places_are_summed_and_passes_without_gradient_left_out(path: Path) -> None:
    targets = [
        {"hook": hook, "sae": {"path": str(path)}, "features": lessons.ACTIVE}
        for hook in (lessons.HOOK, "blocks.2.hook_resid_post")
    ]
    model = get_peft_model(lessons.network(), SaeAdapterConfig(targets=targets, component="bias"))
    lessons.disturb(model)
    ids, mask = batch(4, 4)
    with torch.enable_grad(), watching(model) as watch:
        with torch.no_grad():
            model(ids, use_cache=False)
        with model.disable_adapter():
            model(ids, use_cache=False)
        assert watch.edits == []
        assert watch.edit_size(mask) == 0
        model(ids, use_cache=False)
    biases = [p for p in model.parameters() if p.requires_grad]
    assert len(biases) == len(watch.edits) == 2
    expected = sum(bias.abs().sum() for bias in biases)
    torch.testing.assert_close(watch.edit_size(mask), expected)


@pytest.mark.parametrize("fails", [False, True])
def test_watching_leaves_nothing_behind(fails: bool, path: Path) -> None:
    model = get_peft_model(lessons.network(), lessons.config(path))
    hooks = [m._forward_hooks for m in model.modules() if isinstance(m, Component)]
    before = [dict(found) for found in hooks]
    try:
        with watching(model) as watch:
            assert [dict(found) for found in hooks] != before
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert [dict(found) for found in hooks] == before
    with torch.enable_grad():
        model(tiny.contexts(1), use_cache=False)
    assert watch.edits == []
