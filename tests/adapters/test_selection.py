"""A pass over the examples before training: gradients, firing, and what follows from them."""

from pathlib import Path
from typing import Any

import families
import lessons
import numpy as np
import pytest
import tiny
import torch
from cleansteer.adapters import selection
from cleansteer.adapters.components.component import component_class, names
from cleansteer.adapters.examples import gather
from cleansteer.adapters.selection import fitting_beta2, survey
from cleansteer.core.training import TrainingOptions
from torch import Tensor

STEP = 1e-4
"""Of finite differences in float64: their error is about STEP squared times a third derivative."""
CLOSE = {"rtol": 1e-3, "atol": 2e-6}
"""Float32 gradients of losses of about 7, against float64."""


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def sae(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its folder, and SAELens' own object in float64."""
    folder = tmp_path_factory.mktemp("sae")
    made = tiny.sae(request.param, lessons.HOOK)
    lessons.save_sae(folder, request.param)
    return folder, made.to(torch.float64)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


def surveyed(
    path: Path, objective: str, features: list[int] | None = lessons.ACTIVE, **options: Any
) -> selection.Pass:
    given = TrainingOptions(objective=objective, **({"batch_size": 4} | options))
    with torch.enable_grad():
        return survey(
            lessons.network(),
            tiny.tokenizer(),
            lessons.config(path, "bias", features),
            given,
            lessons.examples(objective, 8),
        )


def latents(made: Any, network: Any, ids: Tensor) -> Tensor:
    """Of SAELens, at every token of one text."""
    return made.encode(families.read_all(network, ids, lessons.HOOK)[0])


def scaled_loss(made: Any, network: Any, rows: lessons.Rows, objective: str, s: Tensor) -> Tensor:
    """The mean over tokens or pairs of the loss, each latent f multiplied by 1 + s_f."""

    def edit(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        return (x + (made.encode(x) * s) @ made.W_dec, *inputs[1:])

    def likelihood(text: str, skip: int, edited: bool = True) -> Tensor:
        handle = network.transformer.h[1].register_forward_pre_hook(edit) if edited else None
        try:
            return lessons.log_probabilities(network, text, skip)
        finally:
            if handle is not None:
                handle.remove()

    losses = []
    for row in rows:
        if objective == "sft":
            losses.append(-likelihood(row["text"], 0))
            continue
        skip = len(row["prompt"].split())
        gains = [
            likelihood(row["prompt"] + row[kind], skip).sum()
            - likelihood(row["prompt"] + row[kind], skip, edited=False).sum()
            for kind in ("chosen", "rejected")
        ]
        losses.append(-torch.nn.functional.logsigmoid(0.1 * (gains[0] - gains[1]))[None])
    return torch.cat(losses).mean()


@pytest.mark.parametrize(("objective", "batch_size"), [("sft", 1), ("sft", 3), ("dpo", 3)])
def test_gradients_are_finite_differences(objective: str, batch_size: int, sae: Any) -> None:
    """Of the mean over all tokens or pairs, whatever stands in a batch together."""
    path, made = sae
    features = [0, 3, 8, 21, 55]
    found = surveyed(path, objective, features, batch_size=batch_size).gradient
    network, rows = lessons.network(torch.float64), lessons.examples(objective, 8).rows
    expected = []
    for feature in features:
        losses = []
        for sign in (1, -1):
            s = torch.zeros(96, dtype=torch.float64)
            s[feature] = sign * STEP
            losses.append(float(scaled_loss(made, network, rows, objective, s)))
        expected.append((losses[0] - losses[1]) / (2 * STEP))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (8, 1), (2, 2), (2, 3), (3, 1)])
def test_firing_is_counted_in_steps(batch_size: int, accumulation: int, sae: Any) -> None:
    """On texts without padding; the order of batches is the trainer's, so sets of texts are tried."""
    path, made = sae
    options = {"batch_size": batch_size, "accumulation": accumulation}
    order: list[list[str]] = []
    dataloader = selection._pass

    def passing(trainer: Any, *others: Any) -> selection.Pass:
        for batch in trainer.get_train_dataloader():
            found = zip(batch["input_ids"], batch["attention_mask"], strict=True)
            order.append([" ".join(f"w{i}" for i in ids[mask.bool()] if i) for ids, mask in found])
        return dataloader(trainer, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_pass", passing)
        found = surveyed(path, "sft", None, **options).step_share
    texts = [row["text"] for row in lessons.examples("sft", 8).rows]
    assert sorted(text for batch in order for text in batch) == sorted(texts)
    network = lessons.network(torch.float64)
    fires = {
        text: (latents(made, network, lessons.tokens(text)) > 1e-6).any(dim=0) for text in texts
    }
    steps = [order[i : i + accumulation] for i in range(0, len(order), accumulation)]
    expected = torch.stack(
        [torch.stack([fires[text] for batch in s for text in batch]).any(dim=0) for s in steps]
    )
    np.testing.assert_allclose(found, expected.double().mean(dim=0))
    assert 0 <= found.min() < found.max() == 1


def test_what_never_fires_has_no_gradient(path: Path) -> None:
    found = surveyed(path, "sft", None)
    silent = found.step_share == 0
    assert 0 < silent.sum() < 96
    assert (found.gradient[silent] == 0).all()
    assert (found.gradient[~silent] != 0).mean() > 0.9


def test_allowed_features_are_a_part_of_all(path: Path) -> None:
    whole, part = surveyed(path, "sft", None), surveyed(path, "sft")
    np.testing.assert_allclose(part.gradient, whole.gradient[lessons.ACTIVE], rtol=1e-5, atol=1e-9)
    assert (part.step_share == whole.step_share[lessons.ACTIVE]).all()


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "training"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_the_model_is_left_as_it_was(
    objective: str, checkpointing: bool, trains: bool, path: Path
) -> None:
    network = tiny.network().requires_grad_(trains).train(trains)
    ids = tiny.contexts(3)
    network.eval()
    before, logits = lessons.state(network), network(ids).logits
    network.train(trains)
    attributes, modules = set(vars(network)), [type(module) for module in network.modules()]
    flags = [(p.requires_grad, p.grad) for p in network.parameters()]
    options = TrainingOptions(
        objective=objective, batch_size=4, gradient_checkpointing=checkpointing
    )
    with torch.enable_grad():
        survey(
            network,
            tiny.tokenizer(),
            lessons.config(path, "bias"),
            options,
            lessons.examples(objective, 8),
        )
    assert set(vars(network)) == attributes, "neither peft_config nor another forward pass"
    assert [type(module) for module in network.modules()] == modules
    assert [(p.requires_grad, p.grad) for p in network.parameters()] == flags
    assert all(module.training is trains for module in network.modules())
    assert not network.is_gradient_checkpointing
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert lessons.same_state(lessons.state(network), before)
    network.eval()
    assert torch.equal(network(ids).logits, logits)


def test_ticks_are_batches(path: Path) -> None:
    ticks: list[int] = []
    with torch.enable_grad():
        survey(
            lessons.network(),
            tiny.tokenizer(),
            lessons.config(path),
            TrainingOptions(batch_size=3),
            gather(lessons.texts(8)),
            ticks.append,
        )
    assert ticks == [1, 1, 1]


# What follows


READING = sorted(name for name in names() if component_class(name).reads)


@pytest.mark.parametrize("component", READING)
def test_beta2_follows_the_rare_ones(component: str) -> None:
    found = [
        fitting_beta2(np.full(20, float(share)), component) for share in (1, 0.5, 0.1, 0.02, 1e-4)
    ]
    assert found == pytest.approx([0.99, 0.995, 0.999, 0.9998, 0.9999])
    # A tenth fires in 1 of 10 steps, the others in each; those that never fire do not count.
    mixed = np.repeat([0.0, 0.1, 1.0], [50, 3, 17])
    assert fitting_beta2(mixed, component) == pytest.approx(0.999)
    assert fitting_beta2(np.zeros(4), component) == 0.99
    draw = np.random.default_rng(0)
    for _ in range(20):
        shares = draw.random(30) ** 4
        lower = fitting_beta2(shares / 2, component)
        assert 0.99 <= fitting_beta2(shares, component) <= lower <= 0.9999


def test_a_constant_push_learns_in_every_step() -> None:
    assert READING == ["lerp", "lowrank", "mlp", "scale", "sparse", "switch"]
    assert fitting_beta2(np.full(5, 0.01), "bias") == 0.99
