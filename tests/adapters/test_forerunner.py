"""IA3 on latents as ISaeRFT has it, written by hand and by SAELens' own forward pass, is ``scale``.

The page that says so is docs/isaerft.md; the model and the SAEs stand in under their real names.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cleansteer as cs
import forerunner
import hub
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.layer import component_at, part_at
from huggingface_hub import constants
from peft import get_peft_model
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from torch import Tensor
from transformers import AutoModelForCausalLM

MATRYOSHKA = {"release": forerunner.RELEASE, "id": forerunner.HOOK}
SCOPE = {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_20/width_16k/canonical"}
SCOPE_FOLDER = "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
BELOW = "blocks.18.hook_resid_post"
SINGLE = 1e-4
"""Float32, of logits up to 30."""
WIDTH = 0.02
"""Of a difference, in units of scales."""
pytestmark = pytest.mark.filterwarnings("ignore:Setting use_error_term:DeprecationWarning")
Arrangement = Callable[[SAE[Any], Tensor], Callable[[Tensor], Tensor]]
"""From an SAE and what is learned to what becomes of a layer's output."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The hub's files, and its cache with the SAEs."""
    folder = tmp_path_factory.mktemp("forerunner")
    hub.build(folder / "hub", ("gemma-2-2b",))
    forerunner.build(folder / "hub")
    models = folder / "hub" / "models"
    hub.write_scope(models / SCOPE_FOLDER, forerunner.LAYER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        listed = get_pretrained_saes_directory()[SCOPE["release"]]
        patch.setattr(listed, "config_overrides", hub.GEMMA_SHAPE)
        for repository in (forerunner.REPOSITORY, "google/gemma-scope-2b-pt-res"):
            cached = folder / "cache" / f"models--{repository.replace('/', '--')}"
            shutil.copytree(models / repository, cached / "snapshots" / "c0ffee")
            (cached / "refs").mkdir()
            (cached / "refs" / "main").write_text("c0ffee", "utf-8")
        yield models


@pytest.fixture(params=[MATRYOSHKA, SCOPE], ids=["matryoshka", "gemma scope"])
def named(request: pytest.FixtureRequest, files: Path) -> dict[str, str]:
    return dict(request.param)


def network(files: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(files / forerunner.MODEL, dtype=dtype).eval()


def saelens(named: dict[str, str]) -> SAE[Any]:
    return SAE.from_pretrained(named["release"], named["id"]).requires_grad_(False)


def adapted(network: Any, named: dict[str, str], *hooks: str) -> Any:
    targets = [{"hook": hook, "sae": dict(named)} for hook in hooks or (forerunner.HOOK,)]
    return get_peft_model(network, SaeAdapterConfig(targets=targets, component="scale"))


def by_hand(sae: SAE[Any], scale: Tensor) -> Callable[[Tensor], Tensor]:
    """Encode, multiply, decode, add what was not reconstructed."""

    def change(x: Tensor) -> Tensor:
        latents = sae.encode(x)
        return sae.decode(latents * (1 + scale)) + (x - sae.decode(latents))

    return change


def with_error_term(sae: SAE[Any], scale: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook on SAELens' latents, and its own forward pass."""
    sae.use_error_term = True
    sae.add_hook("hook_sae_acts_post", lambda latents, hook: latents * (1 + scale))
    return sae


@contextmanager
def edited(network: Any, **changes: Callable[[Tensor], Tensor]) -> Iterator[Any]:
    """An untouched model, of which the outputs of layers are changed."""
    handles = [
        network.model.layers[int(layer[1:])].register_forward_hook(
            lambda module, given, output, change=change: change(output)
        )
        for layer, change in changes.items()
    ]
    yield network
    for handle in handles:
        handle.remove()


def learned(sae: SAE[Any], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = 0.5 * torch.randn(sae.cfg.d_sae, generator=generator)
    return scale.requires_grad_()


def loss(model: Any, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
    return found


@pytest.mark.parametrize("arrangement", [by_hand, with_error_term])
def test_scale_is_ia3_on_latents(
    arrangement: Arrangement, named: dict[str, str], files: Path
) -> None:
    """Logits and gradients."""
    ids, sae = tiny.contexts(6, 12), saelens(named)
    scale = learned(sae)
    model = adapted(network(files), named)
    component = component_at(model, forerunner.HOOK, "default")
    component.scale.data.copy_(scale)
    with torch.enable_grad():
        with edited(network(files), l20=arrangement(sae, scale)) as theirs:
            expected = theirs(ids).logits
            loss(theirs, ids).backward()
        found = model(input_ids=ids).logits
        loss(model, ids).backward()
    torch.testing.assert_close(found, expected, rtol=SINGLE, atol=SINGLE)
    assert scale.grad is not None
    torch.testing.assert_close(component.scale.grad, scale.grad, rtol=1e-3, atol=1e-6)
    assert scale.grad.abs().max() > 1e-3
    untouched = network(files)(ids).logits
    assert (found - untouched).abs().max() > 100 * SINGLE


@torch.no_grad()
def test_the_start_is_the_model_to_the_last_bit(files: Path) -> None:
    """In bfloat16 as well, in which decoding and adding the error rounds."""
    ids, sae = tiny.contexts(6, 12), saelens(MATRYOSHKA).to(torch.bfloat16)
    untouched = network(files, torch.bfloat16)
    expected = untouched(ids).logits
    assert torch.equal(adapted(network(files, torch.bfloat16), MATRYOSHKA)(ids).logits, expected)
    nothing = torch.zeros(sae.cfg.d_sae, dtype=torch.bfloat16)
    with edited(untouched, l20=with_error_term(sae, nothing)) as theirs:
        assert not torch.equal(theirs(ids).logits, expected)


def test_with_two_saes_the_gradient_is_the_losses_own(files: Path) -> None:
    """Against differences; SAELens' error term cuts it off from what lies below."""
    ids = tiny.contexts(6, 12)
    model = adapted(network(files), MATRYOSHKA, BELOW, forerunner.HOOK)
    saes = saelens(MATRYOSHKA), saelens(MATRYOSHKA)
    # Without a jump at the threshold, where the loss has no derivative.
    saes[1].threshold.data.zero_()
    part_at(model, forerunner.HOOK, "default").threshold.zero_()
    scales = [learned(sae, seed) for seed, sae in enumerate(saes)]
    for hook, scale in zip((BELOW, forerunner.HOOK), scales, strict=True):
        component_at(model, hook, "default").scale.data.copy_(scale)
    with torch.enable_grad():
        loss(model, ids).backward()
        below, above = map(with_error_term, saes, scales)
        with edited(network(files), l18=below, l20=above) as theirs:
            same = loss(theirs, ids)
            same.backward()
    torch.testing.assert_close(same, loss(model, ids), rtol=SINGLE, atol=0)
    parameter = component_at(model, BELOW, "default").scale
    direction = parameter.grad / parameter.grad.norm()
    sides = []
    for side in (1, -1):
        parameter.data.copy_(scales[0].detach() + side * WIDTH * direction)
        sides.append(float(loss(model, ids)))
    measured = (sides[0] - sides[1]) / (2 * WIDTH)
    assert float(parameter.grad @ direction) == pytest.approx(measured, rel=0.02)
    assert float(scales[0].grad @ direction) != pytest.approx(measured, rel=0.1)


SETTING = f"""
name = "isaerft"
[model]
name = "model"
[sae]
release = "{forerunner.RELEASE}"
id = "{forerunner.HOOK}"
[downstream_sae]
release = "{forerunner.RELEASE}"
id = "{forerunner.HOOK}"
[corpus]
path = "texts.txt"
[heldout_corpus]
path = "texts.txt"
"""


def test_names_of_every_feature_are_not_asked_for(files: Path, tmp_path: Path) -> None:
    """Feature by feature that would take hours; who wants names is told how to get them."""
    (tmp_path / "model").symlink_to(files / forerunner.MODEL)
    (tmp_path / "isaerft.toml").write_text(SETTING, "utf-8")
    how = {"select": "all", "max_steps": 1, "descriptions": "neuronpedia", "progress": False}
    setting = cs.load_setting(tmp_path / "isaerft.toml")
    told = pytest.warns(UserWarning, match="all 128 are trained; none is named; give its export")
    with torch.enable_grad(), told:
        record = cs.train(setting, lessons.completions(6), out=tmp_path / "out", **how)
    assert record.features is None
