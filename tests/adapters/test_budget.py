"""A budget of KL is kept, on texts that nothing was fitted to, by every method that is trained."""

import math
from pathlib import Path
from typing import Any

import adapted
import coaching
import lessons
import numpy as np
import pytest
import tiny
import torch
from cleansteer.adapters.amplitude import Amplitude
from cleansteer.adapters.budget import (
    Budgeted,
    Multiplier,
    Parts,
    _meeting,
    scale_to_budget,
)
from cleansteer.adapters.components.bias import Bias
from cleansteer.adapters.components.component import names
from cleansteer.adapters.layer import component_at
from cleansteer.adapters.padding import plain_row
from cleansteer.adapters.reference import Reference, divergence, step_divergence
from cleansteer.core.errors import InputError
from cleansteer.core.training import TrainingOptions
from peft import IA3Config, LoraConfig, get_peft_model

ROWS = [[0, *np.random.default_rng(i).integers(1, 60, 4 + i % 5).tolist()] for i in range(30)]
METHODS = [*names(), "lora", "ia3"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("saes") / "sae")


def moved(path: Path, method: str, size: float = 0.3) -> Any:
    """A model whose adapter does something."""
    own = {"lora": LoraConfig(r=2), "ia3": IA3Config()}
    config = own.get(method) or lessons.config(path, method)
    model = get_peft_model(tiny.network(**coaching.CALM), config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data += size * drawn
    return model


def logits(model: Any) -> torch.Tensor:
    return model(adapted.TOKENS, use_cache=False).logits


@pytest.mark.parametrize("method", METHODS)
def test_an_edit_of_no_size_is_none_and_of_one_is_itself(method: str, path: Path) -> None:
    model = moved(path, method)
    with model.disable_adapter():
        base = logits(model)
    whole = logits(model)
    amplitude = Amplitude(model)
    amplitude.check()
    amplitude.set(0.0)
    torch.testing.assert_close(logits(model), base)
    amplitude.set(0.5)
    assert 0 < float((logits(model) - base).abs().max()) < float((whole - base).abs().max()) * 0.9
    amplitude.set(1.0)
    torch.testing.assert_close(logits(model), whole)


CURVES: dict[str, Any] = {
    "square": lambda gamma: 0.3 * gamma**2,
    "steeper": lambda gamma: 0.3 * gamma**3.5,
    "flat": lambda gamma: 0.3 * gamma,
    "saturating": lambda gamma: math.tanh(3 * gamma**2),
    "exploding": lambda gamma: math.expm1(6 * gamma**2),
    "not finite": lambda gamma: 0.05 * gamma**2 if gamma < 0.8 else math.inf,
}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("budget", [0.001, 0.02, 0.25])
def test_the_size_that_meets_a_budget_is_found(curve: str, budget: float) -> None:
    asked: list[float] = []

    def kl_at(gamma: float) -> float:
        asked.append(gamma)
        return float(CURVES[curve](gamma))

    gamma, kl = _meeting(kl_at, budget, kl_at(1.0))
    assert kl == CURVES[curve](gamma)
    assert kl <= 1.01 * budget
    reachable = max(CURVES[curve](g) for g in np.linspace(0, 2, 400) if CURVES[curve](g) < math.inf)
    if reachable >= budget:
        assert kl >= 0.9 * budget
    elif curve != "not finite":
        assert gamma == 2.0
    assert len(asked) <= 10


@pytest.mark.parametrize("method", ["scale", "bias", "lowrank", "lora"])
@pytest.mark.parametrize("budget", [1e-3, 1e-2])
def test_an_edit_is_scaled_to_its_budget(method: str, budget: float, path: Path) -> None:
    model = moved(path, method, 0.6)
    budgeted = Budgeted(budget, Parts.of(ROWS), seed=0)
    assert divergence(model, budgeted.parts.scaled)[0] > budget
    found = scale_to_budget(model, budgeted, lambda: 0.0)
    assert found.gamma < 1
    assert found.kl == pytest.approx(budget, rel=0.011)
    assert found.kl == pytest.approx(divergence(model, ROWS[1::3])[0])
    assert (found.held_out, found.held_out_tokens) == divergence(model, ROWS[2::3])
    assert found.held_out == pytest.approx(budget, rel=0.6)  # ten texts of a few tokens


def test_an_edit_within_its_budget_grows_where_that_learns_more(path: Path) -> None:
    for gains in (True, False):
        model = moved(path, "bias", 0.05)
        budgeted = Budgeted(1.5 * divergence(model, ROWS[1::3])[0], Parts.of(ROWS), 0)
        losses = iter((2.0, 1.0) if gains else (1.0, 2.0))  # as it is, and larger
        found = scale_to_budget(model, budgeted, lambda losses=losses: next(losses))
        if gains:
            assert found.gamma > 1.1
            assert found.kl == pytest.approx(budgeted.budget, rel=0.011)
        else:
            assert found.gamma == 1.0


def test_kl_of_a_step_is_that_of_its_texts_and_has_a_gradient(path: Path) -> None:
    model = moved(path, "bias", 0.2)
    rows = ROWS[:5]
    with torch.enable_grad():
        kl = step_divergence(model, [plain_row(row) for row in rows])
        kl.backward()
    assert float(kl) == pytest.approx(divergence(model, rows)[0], rel=1e-4)
    (parameter,) = (p for p in model.parameters() if p.requires_grad)
    for i in (0, 3):
        step = torch.zeros_like(parameter)
        step[i] = 1e-2
        parameter.data += step
        above = divergence(model, rows)[0]
        parameter.data -= 2 * step
        below = divergence(model, rows)[0]
        parameter.data += step
        assert float(parameter.grad[i]) == pytest.approx((above - below) / 2e-2, rel=0.02, abs=1e-5)


def test_kl_of_several_texts_is_the_mean_over_their_tokens(path: Path) -> None:
    model = moved(path, "scale", 0.5)
    each = [divergence(model, [row]) for row in ROWS]
    kl, count = divergence(model, ROWS)
    assert count == sum(n for _, n in each)
    assert kl == pytest.approx(sum(kl * n for kl, n in each) / count, rel=1e-4)


def test_lambda_follows_kl() -> None:
    class State:
        global_step = 1

    multiplier = Multiplier(budget=0.1, n_steps=100)
    values = [multiplier.value]
    for kl in [10.0] * 20 + [0.0] * 60:
        multiplier.see(kl)
        multiplier.on_step_end(None, State(), None)
        values.append(multiplier.value)
    assert values[20] > values[0]
    assert values[-1] < values[20]
    assert max(np.abs(np.diff(np.log(values)))) <= 0.1 + 1e-9
    kept = multiplier.state()
    again = Multiplier(**kept["args"])
    for name, value in kept["attributes"].items():
        setattr(again, name, value)
    assert (again.value, again.mean, again.budget) == (
        multiplier.value,
        multiplier.mean,
        multiplier.budget,
    )


def test_kl_of_the_step_weighs_in_the_loss_by_lambda(path: Path, tmp_path: Path) -> None:
    """And what is weighed is seen by lambda."""
    options = TrainingOptions(kl_budget=0.01, max_steps=4, batch_size=4, evaluations=1)
    plain = options.model_copy(update={"kl_budget": None})
    losses, steps = [], []
    for each in (plain, options):
        reference = Reference(ROWS[1::3], None, Budgeted(0.01, Parts.of(ROWS), 0))
        trainer = coaching.our_trainer(
            path, tmp_path, each, "bias", reference=reference if each.kl_budget else None
        )
        model = trainer.model.train()
        component_at(model, lessons.HOOK, "default").bias.data += 0.5
        batch = next(iter(trainer.get_train_dataloader()))
        with torch.enable_grad():
            losses.append(float(trainer.compute_loss(model, batch)))
        steps.append((trainer, model, batch))
    trainer, model, batch = steps[1]
    multiplier = next(c for c in trainer.callback_handler.callbacks if isinstance(c, Multiplier))
    assert multiplier.budget == 0.01
    (kl,) = multiplier._seen
    assert kl > 0.01
    assert losses[1] - losses[0] == pytest.approx(kl, rel=1e-3)  # lambda begins at 1
    multiplier.value = 7.0
    with torch.enable_grad():
        again = float(trainer.compute_loss(model, batch))
    assert again - losses[0] == pytest.approx(7.0 * kl, rel=1e-3)


def test_an_edit_that_nothing_says_how_to_scale_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = moved(path, "bias")
    Amplitude(model).check()
    monkeypatch.setattr(Bias, "amplitude", ())
    with pytest.raises(InputError, match="in which of its parameters the edit is linear"):
        Amplitude(model).check()


def test_within_its_budget_a_loss_counts_as_it_is() -> None:
    budgeted = Budgeted(0.1, Parts.of(ROWS), 0)
    assert budgeted.within(before=3.0, loss=2.5, kl=0.1) == 2.5
    assert budgeted.within(before=3.0, loss=2.0, kl=0.4) == 2.5  # half the size, half the gain


def test_every_text_is_in_one_part() -> None:
    parts = Parts.of(ROWS)
    together = [*parts.trained, *parts.scaled, *parts.held_out]
    assert sorted(map(tuple, together)) == sorted(map(tuple, ROWS))
    with pytest.raises(InputError, match="2 texts of use; expected 3 at least"):
        Parts.of(ROWS[:2])
