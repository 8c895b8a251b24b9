"""Training: as TRL's users write it, and what our trainers add to it."""

from pathlib import Path
from typing import Any

import cleansteer  # noqa: F401 - as a user would, before PEFT
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters.trainers import baseline_config, steps
from cleansteer.adapters.training import n_trainable, prepare, remove_checkpoints, save
from cleansteer.core.training import TrainingOptions
from coaching import adapter_of, logged, our_trainer, plain, trained
from peft import PeftModel
from safetensors.torch import load_file

ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""Float32 sums of log-probabilities of about -7 each, padded against unpadded."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


# As a user of TRL


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_plain_trl(objective: str, path: Path, tmp_path: Path) -> None:
    trainer = plain(objective, tmp_path, path)
    base = [p for p in trainer.model.parameters() if not p.requires_grad]
    before = [p.detach().clone() for p in base]
    assert n_trainable(trainer.model) == sum(p.numel() for p in adapter_of(trainer.model).values())
    start = adapter_of(trainer.model)
    model = trained(trainer)
    losses, evaluated = logged(trainer, "loss"), logged(trainer, "eval_loss")
    assert len(losses) == len(evaluated) == 3
    assert losses[-1] < losses[0]
    assert evaluated[-1] < evaluated[0]
    assert len(base) > 40
    assert all(torch.equal(p, known) for p, known in zip(base, before, strict=True))
    untouched = tiny.network().state_dict()
    for name, tensor in model.unload().state_dict().items():
        assert torch.equal(tensor, untouched[name])
    assert all(not torch.equal(start[name], p) for name, p in adapter_of(model).items())


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_what_plain_trl_saves_is_opened_again(objective: str, path: Path, tmp_path: Path) -> None:
    trainer = plain(objective, tmp_path, path)
    model = trained(trainer)
    trainer.save_model(str(tmp_path / "saved"))
    again = PeftModel.from_pretrained(tiny.network(), tmp_path / "saved").eval()
    ids = tiny.contexts(3)
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert not torch.allclose(model(ids).logits, tiny.network()(ids).logits, atol=0.01)


def likelihoods(model: Any, rows: lessons.Rows, kind: str, bos: bool) -> torch.Tensor:
    """Sums of log-probabilities of the completions, one text at a time."""
    return torch.stack(
        [
            lessons.log_probabilities(
                model, row["prompt"] + row[kind], len(row["prompt"].split()), bos
            ).sum()
            for row in rows
        ]
    ).float()


@pytest.mark.parametrize("whose", ["plain", "ours"])
def test_the_reference_of_dpo_is_the_base_model(whose: str, path: Path, tmp_path: Path) -> None:
    rows = lessons.preferences(6, seed=9)
    if whose == "plain":
        trainer = plain("dpo", tmp_path, path)
    else:
        options = TrainingOptions(objective="dpo", max_steps=8, learning_rate=0.05)
        trainer = our_trainer(path, tmp_path, options, rows=lessons.preferences(24), held=rows)
    model = trained(trainer)
    (batch,) = trainer.get_eval_dataloader()
    reference = trainer.compute_ref_log_probs(trainer.model, trainer._prepare_inputs(batch))
    untouched = tiny.network()
    metrics = trainer.evaluate()
    for found, kind in zip(reference, ("chosen", "rejected"), strict=True):
        known, policy = (
            likelihoods(m, rows, kind, bos=whose == "ours") for m in (untouched, model)
        )
        torch.testing.assert_close(found, known, **ROUNDING)
        assert (policy - known).abs().min() > 0.01, "and the policy is another"
        # In the loss itself: rewards are beta times the difference.
        reward = 0.1 * float((policy - known).mean())
        assert metrics[f"eval_rewards/{kind}"] == pytest.approx(reward, abs=1e-4)


# Ours


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 6),  # 3 passes of 2 batches
        ({"batch_size": 4}, 9),
        ({"batch_size": 4, "accumulation": 2}, 6),
        ({"batch_size": 4, "accumulation": 8}, 3),
        ({"epochs": 0.5}, 1),
        ({"epochs": 0.1}, 1),
        ({"epochs": 1.5, "batch_size": 1}, 15),
        ({"max_steps": 4, "epochs": 9.0}, 4),
    ],
)
def test_steps(given: dict[str, Any], expected: int) -> None:
    assert steps(TrainingOptions(**given), 10) == expected


@pytest.mark.parametrize(("evaluations", "at"), [(1, [0, 6]), (3, [0, 2, 4, 6]), (99, range(7))])
def test_evaluations_are_even(evaluations: int, at: Any, path: Path, tmp_path: Path) -> None:
    options = TrainingOptions(max_steps=6, evaluations=evaluations)
    ticks: list[int] = []
    given, held = lessons.examples("sft"), lessons.examples("sft", 4, 9)
    out = tmp_path / "out"
    with torch.enable_grad():
        done = prepare(
            lessons.network(), tiny.tokenizer(), lessons.config(path), options, given, held, out
        ).run(ticks.append)
    assert [entry.step for entry in done.history if entry.eval_loss is not None] == list(at)
    assert sum(ticks) == done.n_steps == 6
    assert [len(part.rows) for part in done.encoded] == [16, 4]
    assert len(list((out / "checkpoints").glob("checkpoint-*"))) <= 2
    save(done, out)
    remove_checkpoints(out)
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    tensors = load_file(out / "adapter_model.safetensors")
    assert [t.tolist() for t in tensors.values()] == [
        p.tolist() for p in adapter_of(done.model).values()
    ]


def test_texts_longer_than_the_model_takes_are_cut(path: Path, tmp_path: Path) -> None:
    rows = [{"text": " ".join(["w3"] * 100)}] * 4
    trainer = our_trainer(path, tmp_path, TrainingOptions(max_steps=1), rows=rows, held=rows)
    (batch,) = trainer.get_train_dataloader()
    assert batch["input_ids"].shape == (4, 64)
    trained(trainer)


def test_the_data_are_drawn_by_the_seed(path: Path, tmp_path: Path) -> None:
    rows = lessons.texts(24)
    found = []
    for seed in (0, 0, 1):
        options = TrainingOptions(max_steps=2, seed=seed, evaluations=1)
        trainer = our_trainer(path, tmp_path / "t", options, "bias", rows=rows)
        found.append(torch.cat([p.flatten() for p in adapter_of(trained(trainer)).values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_baselines_are_of_peft() -> None:
    lora, ia3 = baseline_config("lora", 4), baseline_config("ia3", 4)
    assert (lora.peft_type, lora.r, lora.lora_alpha) == ("LORA", 4, 8)
    assert ia3.peft_type == "IA3"
