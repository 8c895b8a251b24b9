"""What is particular to each component."""

from math import exp
from pathlib import Path
from typing import Any

import adapted
import pytest
import scipy.optimize
import torch
from cleansteer.adapters.components import Component, build, names
from cleansteer.adapters.components.component import check_options, component_class, register
from torch import Tensor

NO_DECAY: dict[Any, dict[str, float]] = {
    torch.optim.SGD: {},
    torch.optim.AdamW: {"weight_decay": 0},
}
Z = torch.tensor([[0.0, 2.0], [1.0, -4.0]])


def made(name: str, values: dict[str, list[object]], **options: float) -> Component:
    component = build(name, 2, check_options(name, options), seed=0)
    assert {key for key, _ in component.named_parameters()} == values.keys()
    for key, value in values.items():
        parameter = component.get_parameter(key)
        assert parameter.shape == torch.tensor(value).shape, key
        parameter.copy_(torch.tensor(value))
    return component


def says(component: Component, change: list[object]) -> None:
    expected = torch.tensor(change, dtype=torch.float32)
    torch.testing.assert_close(component(Z).expand_as(Z), expected)


def test_scale() -> None:
    says(made("scale", {"scale": [3.0, -1.0]}), [[0.0, -2.0], [3.0, 4.0]])


def test_bias() -> None:
    says(made("bias", {"bias": [3.0, -1.0]}), [[3.0, -1.0], [3.0, -1.0]])


def test_bias_reads_nothing() -> None:
    component = made("bias", {"bias": [3.0, -1.0]})
    assert not component.reads
    assert torch.equal(component(None), torch.tensor([3.0, -1.0]))
    assert all(component_class(name).reads for name in names() if name != "bias")


def test_lerp() -> None:
    component = made("lerp", {"weight": [0.5, 1.0], "target": [2.0, 5.0]})
    says(component, [[1.0, 3.0], [0.5, 9.0]])
    assert torch.equal((Z + component(Z))[:, 1], torch.tensor([5.0, 5.0]))  # clamped


def test_switch() -> None:
    component = made("switch", {"push": [4.0, 3.0], "threshold": [0.0, 1.0]}, temperature=0.5)
    half, above, below = 2.0, 3 / (1 + exp(-2.0)), 3 / (1 + exp(10.0))
    says(component, [[half, above], [4 / (1 + exp(-2.0)), below]])


def test_switch_starts_at_its_threshold() -> None:
    component = build("switch", 3, check_options("switch", {"threshold": 7}), seed=0)
    assert torch.equal(component.get_parameter("threshold"), torch.full((3,), 7.0))
    default = build("switch", 3, check_options("switch", {}), seed=0)
    assert torch.equal(default.get_parameter("threshold"), torch.full((3,), 1.0))
    assert default.temperature == 0.25


def test_mlp() -> None:
    values = {
        "inner": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
        "inner_bias": [0.5, 0.0, -1.0],
        "outer": [[1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]],
        "outer_bias": [10.0, 20.0],
    }
    # Hidden: (0.5, 2, 1) and (1.5, 0, 0).
    says(made("mlp", values, hidden=3), [[17.5, 20.5], [11.5, 18.5]])


def test_lowrank() -> None:
    component = made("lowrank", {"down": [[1.0, 2.0]], "up": [[3.0], [-1.0]]}, rank=1)
    says(component, [[12.0, -4.0], [-21.0, 7.0]])


def test_sparse() -> None:
    says(made("sparse", {"matrix": [[0.0, 1.0], [2.0, 0.0]]}), [[2.0, 0.0], [-4.0, 2.0]])


def stepped(component: Component, optimiser: torch.optim.Optimizer, slope: Tensor) -> Tensor:
    """The matrix after a step on a loss of this gradient."""
    matrix = component.get_parameter("matrix")
    matrix.grad = slope
    optimiser.step()
    return matrix.detach()


@pytest.mark.parametrize(("l1", "rate"), [(0.5, 0.4), (1e-3, 10.0), (3.0, 0.1)])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_sparse_steps_to_the_proximal_point(kind: Any, l1: float, rate: float) -> None:
    """Argmin over s of D (s - S)^2 / 2 + l1 |s|, found by search; S is the step without penalty, D the
    gradient divided by how far it went.
    """
    start, slope = (
        torch.tensor([[0.3, -0.05], [-0.7, 0.2]]),
        torch.tensor([[0.5, 0.1], [-2.0, 1.0]]),
    )
    free, component = (made("sparse", {"matrix": start.tolist()}, l1=each) for each in (0.0, l1))
    plain, shrunk = (
        stepped(each, kind(each.parameters(), lr=rate, **NO_DECAY[kind]), slope)
        for each in (free, component)
    )
    metric = slope / (start - plain)

    def lowest(entry: float, scale: float) -> float:
        def penalised(s: float) -> float:
            return scale * (s - entry) ** 2 / 2 + l1 * abs(s)

        width = abs(entry) + 1
        found = scipy.optimize.minimize_scalar(penalised, bounds=(-width, width), method="bounded")
        return float(found.x)

    expected = [
        lowest(float(s), float(d)) for s, d in zip(plain.ravel(), metric.ravel(), strict=True)
    ]
    search = 1e-3  # minimize_scalar stops near 1e-5 of its bounds
    torch.testing.assert_close(
        shrunk, torch.tensor(expected).reshape(2, 2), rtol=search, atol=search
    )
    below = plain.abs() <= l1 / metric
    assert (shrunk[below] == 0).all()
    assert (shrunk[~below] != 0).all()


def test_only_sparse_has_a_penalty_of_its_own() -> None:
    for name in names():
        component = build(name, 5, check_options(name, {}), seed=0)
        with torch.no_grad():
            for parameter in component.parameters():
                parameter.fill_(2.0)
        assert float(component.penalty()) == pytest.approx(2 * 25 * 1e-3 if name == "sparse" else 0)


@pytest.mark.parametrize("name", names())
def test_says_nothing_when_made(name: str) -> None:
    component = build(name, 5, check_options(name, {}), seed=3)
    latents = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0)).relu()
    assert torch.equal(component(latents).expand_as(latents), torch.zeros_like(latents))


def drawn(name: str, n_features: int, seed: int, **options: float) -> Tensor:
    component = build(name, n_features, check_options(name, options), seed)
    return component.get_parameter({"mlp": "inner", "lowrank": "down"}[name])


@pytest.mark.parametrize("name", ["mlp", "lowrank"])
def test_a_seed_gives_the_same_start_and_another_another(name: str) -> None:
    state = torch.get_rng_state()
    assert torch.equal(drawn(name, 50, 3), drawn(name, 50, 3))
    assert not torch.equal(drawn(name, 50, 3), drawn(name, 50, 4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "option"), [("mlp", "hidden"), ("lowrank", "rank")])
def test_what_is_drawn_has_variance_one_over_n_features(name: str, option: str) -> None:
    values = drawn(name, 400, 0, **{option: 500})
    assert values.shape == (500, 400)
    # 200000 draws: the variance's standard error is sqrt(2 / 200000), 0.3 %.
    assert float(values.var()) == pytest.approx(1 / 400, rel=0.016)
    assert abs(float(values.mean())) < 5 / 20 / 200000**0.5


def test_targets_of_one_adapter_start_differently(shelf: Path) -> None:
    hooks = ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post")
    config = adapted.adapter([adapted.target(shelf, hook) for hook in hooks], "lowrank", seed=2)
    starts = []
    for _ in range(2):
        model = adapted.adapt(adapted.network(), config, random=False)
        found = adapted.parameters(model).items()
        starts.append([value for name, value in found if name.endswith("down")])
    assert all(torch.equal(a, b) for a, b in zip(*starts, strict=True))
    one, two, three = starts[0]
    assert not torch.equal(one, two)
    assert not torch.equal(one, three)
    assert not torch.equal(two, three)


def test_the_registry_refuses_a_name_twice() -> None:
    before = component_class("scale")
    with pytest.raises(ValueError, match="'scale' is registered already"):
        register("scale", component_class("bias"))
    assert component_class("scale") is before
    assert names() == ("bias", "lerp", "lowrank", "mlp", "scale", "sparse", "switch")


def test_options_are_filled_in() -> None:
    assert check_options("scale", {}) == {}
    assert check_options("mlp", {}) == {"hidden": 64}
    assert check_options("lowrank", {"rank": 2}) == {"rank": 2}
    assert check_options("switch", {"threshold": -3}) == {"threshold": -3, "temperature": 0.25}
    assert check_options("sparse", {"l1": 0}) == {"l1": 0}


@pytest.mark.parametrize("name", names())
def test_what_never_fires_can_learn_or_not(name: str) -> None:
    """Pulled at for some steps, the change of a latent that was always 0 is 0, or is not."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.rand(20, 4, generator=generator) + 0.5
    latents[:, 2] = 0
    pull = torch.randn(20, 4, generator=generator)
    with torch.enable_grad():
        component = build(name, 4, {}, seed=0)
        optimiser = torch.optim.Adam(component.parameters(), lr=0.1)
        for _ in range(5):
            optimiser.zero_grad()
            (component(latents) * pull).sum().backward()
            optimiser.step()
    change = component(latents).expand(20, 4)
    assert (change[:, [0, 1, 3]] != 0).all()
    assert bool((change[:, 2] != 0).any()) == component_class(name).moves_silent
