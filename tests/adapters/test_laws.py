"""Laws that every component obeys in every family with every kind of SAE."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapted
import full_sae
import pytest
import torch
from cleansteer.adapters.components import names
from peft import PeftModel
from sae_lens import SAE
from torch import Tensor

IN_SPAN = 1e-5  # x + change is rounded to float32, and the change is smaller than x
ARCHITECTURES = ("standard", "jumprelu", "topk")
BLIND_AT_START = {"target", "threshold", "inner", "inner_bias", "down"}
"""Parameters whose gradient is 0 as long as another one is."""
SAYS_NOTHING_AT_ZERO = {
    "scale": ("scale",),
    "bias": ("bias",),
    "lerp": ("weight",),
    "switch": ("push",),
    "mlp": ("outer", "outer_bias"),
    "lowrank": ("up",),
    "sparse": ("matrix",),
}
"""Parameters whose row of a feature, if 0, leaves that feature as it is."""


@dataclass(frozen=True)
class Case:
    component: str
    family: str
    architecture: str
    site: str

    def config(
        self,
        shelf: Path,
        site: str | None = None,
        layer: int = 1,
        features: list[int] | None = None,
        component: str | None = None,
    ) -> Any:
        hook = f"blocks.{layer}.{site or self.site}"
        width = adapted.width_at(self.family, hook)
        chosen = adapted.FEATURES if features is None else features
        target = adapted.target(shelf, hook, self.architecture, chosen, width=width)
        return adapted.adapter([target], component or self.component)

    def network(self) -> Any:
        return adapted.network(self.family)

    def base_logits(self) -> Tensor:
        return adapted.base_logits(self.family)


CASES = [
    Case(component, family, architecture, adapted.SITES[(c + f + a) % len(adapted.SITES)])
    for c, component in enumerate(names())
    for f, family in enumerate(adapted.FAMILIES)
    for a, architecture in enumerate(ARCHITECTURES)
]


@pytest.fixture(
    params=CASES, ids=lambda case: f"{case.component}-{case.family}-{case.architecture}"
)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_identity_at_initialisation(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf), random=False)
    assert torch.equal(adapted.logits(model), case.base_logits())


def test_equals_the_full_sae(case: Case, shelf: Path) -> None:
    for site in adapted.SITES:
        config = case.config(shelf, site)
        model = adapted.adapt(case.network(), config)
        found = adapted.logits(model)
        assert adapted.relative(found, case.base_logits()) > 1e-3
        slow = case.network()
        with full_sae.installed(slow, adapted.edits(config, model)):
            assert adapted.relative(found, adapted.logits(slow)) < adapted.EXACT, site


def test_only_allowed_features_are_edited(
    case: Case, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    config = case.config(shelf)
    model = adapted.adapt(case.network(), config)
    change, _ = adapted.change_of(model, watched)
    rows = decoder_rows(config)
    rest = change - change @ torch.linalg.pinv(rows) @ rows
    assert change.abs().max() > 0.01
    assert rest.abs().max() < IN_SPAN * change.abs().max()


def test_an_allowed_feature_without_weights_is_left_alone(
    case: Case, shelf: Path, watched: list[tuple[Tensor, Tensor]]
) -> None:
    config = case.config(shelf)
    model = adapted.adapt(case.network(), config)
    for name, parameter in adapted.parameters(model).items():
        if name.rpartition(".")[2] in SAYS_NOTHING_AT_ZERO[case.component]:
            parameter[0] = 0  # of feature 0, which always fires
    change, _ = adapted.change_of(model, watched)
    by_feature = change @ torch.linalg.pinv(decoder_rows(config))
    assert by_feature[:, 0].abs().max() < IN_SPAN * by_feature.abs().max()
    assert (by_feature[:, 1:].abs().amax(dim=0) > 0.01).any()


def decoder_rows(config: Any) -> Tensor:
    (target,) = config.targets
    sae = SAE.load_from_disk(target["sae"]["path"])
    return sae.W_dec.detach()[target["features"]].double()


def test_only_adapter_weights_have_gradients_and_move(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf))
    own = adapted.parameters(model)
    before = copy.deepcopy(model)
    with torch.enable_grad():
        adapted.logits(model).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name in own), name
        if name in own:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name)) == (name not in own), name
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before.get_buffer(name)), name


def test_training_can_start(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf), random=False)
    with torch.enable_grad():
        adapted.logits(model).square().mean().backward()
    for name, parameter in adapted.parameters(model).items():
        assert parameter.grad is not None, name
        moves = bool(parameter.grad.abs().max() > 0)
        assert moves == (name.rpartition(".")[2] not in BLIND_AT_START), name


def test_saved_and_loaded_exactly(case: Case, shelf: Path, tmp_path: Path) -> None:
    config = case.config(shelf)
    model = adapted.adapt(case.network(), config)
    expected = adapted.logits(model)
    model.save_pretrained(tmp_path)
    for name in ("default", "another"):
        loaded = PeftModel.from_pretrained(case.network(), tmp_path, adapter_name=name)
        assert torch.equal(adapted.logits(loaded), expected), name
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    second = adapted.adapt(case.network(), config, random=False)
    second.load_adapter(tmp_path, "beside")
    assert torch.equal(adapted.logits(second), case.base_logits())
    second.set_adapter("beside")
    assert torch.equal(adapted.logits(second), expected)
    second.save_pretrained(tmp_path / "again")
    again = PeftModel.from_pretrained(case.network(), tmp_path / "again" / "beside")
    assert torch.equal(adapted.logits(again), expected)


def test_disabled_exactly(case: Case, shelf: Path) -> None:
    model = adapted.adapt(case.network(), case.config(shelf))
    expected = adapted.logits(model)
    with model.disable_adapter():
        assert torch.equal(adapted.logits(model), case.base_logits())
    assert torch.equal(adapted.logits(model), expected)


def test_unloaded_without_a_trace(case: Case, shelf: Path) -> None:
    base = case.network()
    modules = dict(base.named_modules())
    parameters = dict(base.named_parameters())
    model = adapted.adapt(base, case.config(shelf))
    assert not torch.equal(adapted.logits(model), case.base_logits())
    unloaded = model.unload()
    assert unloaded is base
    assert torch.equal(adapted.logits(base), case.base_logits())
    assert adapted.hooks_of(base) == []
    assert dict(base.named_modules()) == modules
    assert all(base.get_parameter(name) is kept for name, kept in parameters.items())
    assert len(dict(base.named_parameters())) == len(parameters)
    assert not hasattr(base, "peft_config")


def test_two_adapters_are_independent(case: Case, shelf: Path) -> None:
    number = CASES.index(case)
    first = case.config(shelf)
    second = case.config(
        shelf,
        layer=1 + number % 2,  # at the same place, or a layer later
        features=[5, 11, 40, 91],
        component=names()[(names().index(case.component) + 1) % len(names())],
    )
    alone = [adapted.adapt(case.network(), config) for config in (first, second)]
    expected = [adapted.logits(model) for model in alone]
    model = adapted.adapt(case.network(), first)
    model.add_adapter("second", copy.deepcopy(second))
    adapted.randomise(model, "second")
    assert torch.equal(adapted.logits(model), expected[0])
    for name, value in (("second", expected[1]), ("default", expected[0])):
        model.set_adapter(name)
        assert torch.equal(adapted.logits(model), value)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trained == adapted.parameters(model, name).keys()
    one, other = adapted.edits(first, alone[0]), adapted.edits(second, alone[1])
    for order, edits in (
        (["default", "second"], one + other),
        (["second", "default"], other + one),
    ):
        model.base_model.set_adapter(order)
        adapted.compare(case.family, model, edits)
    model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.equal(adapted.logits(model), expected[1])
    assert not adapted.parameters(model, "default")
