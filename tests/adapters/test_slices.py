"""A slice encodes as SAELens does, whatever the size of its inputs."""

from pathlib import Path
from typing import Any

import adapted
import pytest
import tiny
import torch
from cleansteer.adapters.slices import Slice
from sae_lens import SAE

EXACT = 1e-5  # float32; sums of 32 products in another order

KINDS: list[dict[str, Any]] = [
    {"architecture": architecture, "normalize_activations": normalisation, **more}
    for architecture in tiny.ARCHITECTURES
    for normalisation in ("none", "constant_norm_rescale", "layer_norm")
    for more in ({}, {"apply_b_dec_to_input": False})
] + [{"architecture": "topk", "rescale_acts_by_decoder_norm": True}]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_encodes_as_saelens(kind: dict[str, Any], size: float) -> None:
    sae = tiny.sae(hook="", **kind).requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    values = size * (0.3 + torch.randn(3, 50, tiny.WIDTH, generator=generator))
    part = Slice(sae, adapted.FEATURES, centred=False)
    read, unit = part.read(values)
    found = part.encode(read)
    expected = sae.encode(values)[..., adapted.FEATURES]
    assert (expected == 0).any()
    assert (expected > 0).any() or size < 1  # where biases decide, nothing may fire
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT * float(expected.max()))
    assert torch.equal(found > 0, expected > 0)
    # What a unit of a latent is worth: SAELens' decoder is linear but for its constant.
    step = torch.zeros(*values.shape[:-1], sae.cfg.d_sae)
    nothing = sae.decode(step)
    sae.encode(values)  # a decode uses up what its encode keeps of the input's norm
    step[..., adapted.FEATURES] = 1.0
    change = part.decoder.sum(dim=0) * (1.0 if unit is None else unit)
    slack = 1e-4 if size < 1 else EXACT  # a difference of numbers that are larger than it
    assert adapted.relative(change.expand_as(values), sae.decode(step) - nothing) < slack


def test_an_sae_is_left_as_it_was(shelf: Path) -> None:
    """Nothing that a slice keeps is shared with the SAE."""
    path = adapted.target(shelf, "blocks.1.hook_resid_pre", "topk")["sae"]["path"]
    sae = SAE.load_from_disk(path)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    part = Slice(sae.requires_grad_(False), None, centred=False)
    for buffer in part.buffers():
        buffer.zero_()
    assert all(torch.equal(before[name], value) for name, value in sae.state_dict().items())


@pytest.mark.parametrize("normalisation", ["constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("component", ["bias", "scale"])
def test_at_zero_nothing_is_undefined(normalisation: str, component: str, shelf: Path) -> None:
    """As of a padding token, or a dead layer; gradients are finite too."""
    hook = "blocks.1.hook_resid_pre"
    target = adapted.target(shelf, hook, normalize_activations=normalisation)
    model = adapted.adapt(adapted.network(), adapted.adapter([target], component))
    (layer,) = adapted.layers(model)
    values = torch.zeros(2, 3, tiny.WIDTH)
    values[0, 0] = 1.0
    with torch.enable_grad():
        values.requires_grad_()
        found = layer.edit("entry", values)
        found.square().sum().backward()
    assert found.isfinite().all()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert torch.equal(found[1], torch.zeros_like(found[1])) or normalisation == "layer_norm"
