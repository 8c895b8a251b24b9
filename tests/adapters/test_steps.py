"""What follows an optimiser's step: a penalty that makes exact zeros, whoever takes the step."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lessons
import numpy as np
import pytest
import tiny
import torch
from cleansteer.adapters import SFTConfig
from cleansteer.adapters.components.component import Component, build, names
from cleansteer.core.errors import InputError
from cleansteer.core.training import TrainingOptions
from coaching import adapter_of, our_trainer, plain, trained
from datasets import Dataset
from peft import get_peft_model
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR
from trl import SFTTrainer

N_FEATURES, N_TOKENS = 24, 400
L1 = 0.3
Make = Callable[[list[nn.Parameter]], Optimizer]
OPTIMISERS: dict[str, Make] = {
    "AdamW, fused": lambda p: AdamW(p, lr=0.03, weight_decay=0, fused=True),
    "AdamW, foreach": lambda p: AdamW(p, lr=0.03, weight_decay=0, foreach=True),
    "Adam, amsgrad": lambda p: Adam(p, lr=0.03, amsgrad=True),
    "SGD": lambda p: SGD(p, lr=0.1),
    "SGD, momentum": lambda p: SGD(p, lr=0.02, momentum=0.8),
    "SGD, dampening": lambda p: SGD(p, lr=0.1, momentum=0.8, dampening=0.8),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    """Latents, and what a map of six entries and noise make of them."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(N_TOKENS, N_FEATURES, generator=generator)
    true = torch.zeros(N_FEATURES, N_FEATURES)
    for row, column in ((0, 3), (3, 0), (5, 5), (7, 20), (20, 7), (23, 1)):
        true[row, column] = 2.0 - 0.1 * row
    noise = 0.3 * torch.randn(N_TOKENS, N_FEATURES, generator=generator)
    return z, z @ true.T + noise


def loss_of(edit: Tensor, goal: Tensor) -> Tensor:
    return (goal - edit).square().sum() / (2 * len(goal))


def descend(
    component: Component, make: Make, problem: tuple[Tensor, Tensor], n_steps: int = 600
) -> Component:
    """A loop as anybody would write it."""
    z, goal = problem
    optimiser = make(list(component.parameters()))
    schedule = LambdaLR(optimiser, lambda step: 1 - step / n_steps)
    for _ in range(n_steps):
        with torch.enable_grad():
            loss_of(component(z), goal).backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    return component


def sparse(l1: float = L1) -> Any:
    return build("sparse", N_FEATURES, {"l1": l1}, 0)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_optimum_is_that_of_a_solver(name: str, problem: tuple[Tensor, Tensor]) -> None:
    z, goal = problem
    solver = Lasso(alpha=L1, fit_intercept=False, tol=1e-10, max_iter=10_000)
    solver.fit(z.double().numpy(), goal.double().numpy())
    expected = np.asarray(solver.coef_)
    assert (expected == 0).mean() > 0.98
    found = descend(sparse(), OPTIMISERS[name], problem).matrix
    assert np.array_equal(found.numpy() != 0, expected != 0)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_without_a_penalty_nothing_is_shrunk(problem: tuple[Tensor, Tensor]) -> None:
    free = descend(sparse(0.0), OPTIMISERS["AdamW, fused"], problem).matrix
    z, goal = problem
    expected = torch.linalg.lstsq(z, goal).solution.T
    torch.testing.assert_close(free, expected, atol=2e-3, rtol=0)


def test_a_copy_is_trained_likewise(problem: tuple[Tensor, Tensor]) -> None:
    made = [sparse(), copy.deepcopy(sparse())]
    one, other = (descend(each, OPTIMISERS["SGD"], problem, 20).matrix for each in made)
    assert torch.equal(one, other)
    assert (one == 0).float().mean() > 0.9


def test_a_state_that_is_loaded_goes_on_alike(problem: tuple[Tensor, Tensor]) -> None:
    z, goal = problem

    def step(component: Any, optimiser: Optimizer, times: int) -> None:
        for _ in range(times):
            with torch.enable_grad():
                loss_of(component(z), goal).backward()
            optimiser.step()
            optimiser.zero_grad()

    whole, first, second = sparse(), sparse(), sparse()
    make = OPTIMISERS["AdamW, fused"]
    step(whole, make([whole.matrix]), 20)
    early = make([first.matrix])
    step(first, early, 12)
    late = make([second.matrix])
    second.load_state_dict(first.state_dict())
    late.load_state_dict(early.state_dict())
    step(second, late, 8)
    assert torch.equal(second.matrix, whole.matrix)


def test_a_step_that_a_scaler_skips_shrinks_nothing(problem: tuple[Tensor, Tensor]) -> None:
    z, goal = problem
    component = sparse()
    optimiser = AdamW([component.matrix], lr=0.03, fused=True)
    scaler = torch.amp.GradScaler("cpu")
    for factor in (1.0, 1.0, float("inf"), 1.0):
        before = component.matrix.detach().clone()
        with torch.enable_grad():
            scaler.scale(loss_of(component(z), goal) * factor).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        assert torch.equal(component.matrix, before) is (factor != 1.0)


def test_what_has_no_gradient_is_not_shrunk(problem: tuple[Tensor, Tensor]) -> None:
    z, goal = problem
    one, other = sparse(), sparse()
    with torch.no_grad():
        other.matrix.fill_(1.0)
    optimiser = AdamW([one.matrix, other.matrix], lr=0.03)
    with torch.enable_grad():
        loss_of(one(z), goal).backward()
    optimiser.step()
    assert (one.matrix != 0).any()
    assert (other.matrix == 1).all()


def test_an_optimiser_of_unknown_steps_is_refused(problem: tuple[Tensor, Tensor]) -> None:
    z, goal = problem
    component = sparse()
    optimiser = RMSprop([component.matrix])
    with torch.enable_grad():
        loss_of(component(z), goal).backward()
    with pytest.raises(InputError, match=r"optimiser RMSprop with the component 'sparse'"):
        optimiser.step()
    assert (component.matrix == 0).all()
    for free in (sparse(0.0), build("scale", N_FEATURES, {}, 0)):
        descend(free, RMSprop, problem, 2)


# With TRL


def matrix_of(model: Any) -> Tensor:
    (found,) = adapter_of(model).values()
    return found


def test_the_first_step_of_a_trainer(path: Path, tmp_path: Path) -> None:
    """Adam's first step is lr sign(g), and its metric abs(g) / lr: an entry moves by
    lr max(1 - l1 / abs(g), 0).
    """
    options = TrainingOptions(max_steps=1, learning_rate=0.1)
    trainer = our_trainer(path, tmp_path / "t", options, "sparse", l1=0.0)
    model = trainer.model.train()
    (batch,) = trainer.get_train_dataloader()
    with torch.enable_grad():
        trainer.compute_loss(model, trainer._prepare_inputs(batch)).backward()
    (gradient,) = (p.grad for p in model.parameters() if p.requires_grad)
    assert gradient is not None
    l1 = float(gradient[gradient != 0].abs().median())
    expected = -0.1 * gradient.sign() * (1 - l1 / gradient.abs()).clamp(min=0)
    shrunk = matrix_of(trained(our_trainer(path, tmp_path / "u", options, "sparse", l1=l1)))
    torch.testing.assert_close(shrunk, expected.nan_to_num(), rtol=1e-3, atol=1e-5)
    assert 0.1 < float((shrunk != 0).float().mean()) < 0.6


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_plain_trl_makes_zeros(objective: str, path: Path, tmp_path: Path) -> None:
    """With nothing but the component named: no callback, no trainer of ours."""
    share = {}
    for l1 in (0.0, 0.02, 50.0):
        model = trained(plain(objective, tmp_path, path, "sparse", options={"l1": l1}))
        share[l1] = float((matrix_of(model) == 0).float().mean())
    assert share[0.0] + 0.1 < share[0.02] < share[50.0] == 1


def test_accumulated_batches_shrink_once(path: Path, tmp_path: Path) -> None:
    found = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        options = TrainingOptions(
            max_steps=3, learning_rate=0.1, batch_size=batch_size, accumulation=accumulation
        )
        trainer = our_trainer(path, tmp_path / str(batch_size), options, "sparse", l1=0.02)
        found.append(matrix_of(trained(trainer)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
    assert (found[0] == 0).any()
    assert (found[0] != 0).any()


# Learning rates


def told(rate: float, make: Any = AdamW, scheduled: bool = False) -> list[str]:
    component: Any = build("scale", N_FEATURES, {}, 0)
    optimiser = make(component.parameters(), lr=rate)
    if scheduled:
        LambdaLR(optimiser, lambda step: min(step / 5, 1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            with torch.enable_grad():
                component(torch.ones(2, N_FEATURES)).sum().backward()
            optimiser.step()
    return [str(each.message) for each in seen if "learning_rate" in str(each.message)]


def test_a_rate_for_whole_models_is_told_once() -> None:
    (message,) = told(2e-5)
    assert "2e-05" in message
    assert "'scale'" in message
    assert "SFTConfig" in message
    assert len(told(2e-5, scheduled=True)) == 1


@pytest.mark.parametrize(
    ("rate", "make", "scheduled"), [(0.03, AdamW, False), (0.03, Adam, True), (2e-5, SGD, False)]
)
def test_other_rates_are_not_told(rate: float, make: Any, scheduled: bool) -> None:
    """A schedule that begins at 0 is none, and SGD's rate is of another kind."""
    assert told(rate, make, scheduled) == []


def test_what_is_none_of_ours_is_not_told() -> None:
    linear = nn.Linear(2, 2)
    optimiser = AdamW(linear.parameters(), lr=2e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.enable_grad():
            linear(torch.ones(1, 2)).sum().backward()
        optimiser.step()


@pytest.mark.parametrize("component", names())
def test_our_defaults_learn_what_trls_do_not(component: str, path: Path, tmp_path: Path) -> None:
    """Twelve steps of the trainer of TRL's documentation, with our arguments in place of TRL's."""
    import trl

    rows = Dataset.from_list(lessons.texts(24))

    def fall(arguments: Any) -> float:
        model = get_peft_model(
            tiny.network(resid_pdrop=0.0, embd_pdrop=0.0), lessons.config(path, component)
        )
        args = arguments(
            output_dir=str(tmp_path),
            max_steps=12,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
        )
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=tiny.tokenizer(),
        )
        before = trainer.evaluate()["eval_loss"]
        with torch.enable_grad():
            trainer.train()
        return float(before - trainer.evaluate()["eval_loss"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fall(
            lambda **given: trl.SFTConfig(bf16=False, gradient_checkpointing=False, **given)
        )
    ours = fall(SFTConfig)
    assert ours > 0.02
    assert ours > 10 * theirs
