"""Training: as TRL's users write it, and what our trainers add to it."""

from pathlib import Path
from typing import Any

import beginnings
import cleansteer  # noqa: F401 - as a user would, before PEFT
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters import Target
from cleansteer.adapters.components.sparse import Sparse
from cleansteer.adapters.examples import gather
from cleansteer.adapters.model import load_target
from cleansteer.adapters.penalties import Drift, values_at, watching
from cleansteer.adapters.trainers import (
    ADAPTER,
    ProximalStep,
    baseline_config,
    find_layer,
    make_trainer,
    steps,
)
from cleansteer.adapters.training import n_trainable, prepare, remove_checkpoints, save
from cleansteer.core.training import TrainingOptions
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""Float32 sums of log-probabilities of about -7 each, padded against unpadded."""
ADAM = {"rtol": 1e-3, "atol": 1e-5}
"""Adam's quotients of gradients that differ by rounding."""
CALM = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


def plain(objective: str, folder: Path, path: Path, component: str = "mlp", **more: Any) -> Any:
    """A trainer as TRL's documentation has it."""
    trainer, arguments = {"sft": (SFTTrainer, SFTConfig), "dpo": (DPOTrainer, DPOConfig)}[objective]
    options = more.pop("options", {})
    return trainer(
        model=tiny.network(),
        args=arguments(
            output_dir=str(folder),
            learning_rate=0.05,
            max_steps=12,
            per_device_train_batch_size=8,
            eval_strategy="steps",
            eval_steps=4,
            logging_steps=4,
            save_strategy="no",
            report_to="none",
            bf16=False,
            use_cpu=True,
        ),
        train_dataset=Dataset.from_list(lessons.ROWS[objective](24)),
        eval_dataset=Dataset.from_list(lessons.ROWS[objective](6, seed=9)),
        processing_class=tiny.tokenizer(),
        peft_config=lessons.config(path, component, **options),
        **more,
    )


def trained(trainer: Any) -> Any:
    with torch.enable_grad():
        trainer.train()
    trainer.model.eval()
    return trainer.model


def logged(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def adapter_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


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


def our_trainer(
    path: Path,
    folder: Path,
    options: TrainingOptions,
    component: str = "mlp",
    rows: lessons.Rows | None = None,
    held: lessons.Rows | None = None,
    weighted: bool = False,
    **component_options: float,
) -> Any:
    """A trainer on texts of one length, of a model without dropout."""
    network = tiny.network(**CALM).requires_grad_(False)
    texts = {"sft": lambda: lessons.texts(8, 0, 6, 6), "dpo": lambda: alike(8)}[options.objective]
    config = lessons.config(path, component, **component_options)
    drift = None
    if weighted:
        values = values_at(
            network, tiny.tokenizer(), lessons.HOOK, [r["text"] for r in lessons.texts(6)], 64
        )
        whole = load_target(Target.parse(config.targets[0]).with_features(None), network).part
        drift = Drift(values, whole, lessons.ACTIVE, options.seed)
    given = gather(rows or texts())
    held_out = gather(held or lessons.ROWS[options.objective](4, seed=9))
    return make_trainer(network, tiny.tokenizer(), config, options, given, held_out, folder, drift)


def alike(count: int) -> lessons.Rows:
    """Preferences of one length."""
    drawn = [lessons.texts(count, seed, 3, 3, 300) for seed in range(3)]
    return [
        {"prompt": a["text"], "chosen": " " + b["text"], "rejected": " " + c["text"]}
        for a, b, c in zip(*drawn, strict=True)
    ]


@pytest.mark.parametrize("penalty", ["none", "l1", "drift"])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_accumulated_batches_are_one(
    objective: str, penalty: str, path: Path, tmp_path: Path
) -> None:
    found = []
    for batch_size, accumulation in ((7, 1), (2, 4)):
        options = TrainingOptions(
            objective=objective,  # type: ignore[arg-type]
            max_steps=3,
            batch_size=batch_size,
            accumulation=accumulation,
            learning_rate=0.1,
            evaluations=1,  # so that the last step's adapter is the best
            **({} if penalty == "none" else {penalty: 0.5}),
        )
        folder = tmp_path / str(batch_size)
        # Of unlike lengths, and the last batch is a short one.
        rows = lessons.ROWS[objective](7, seed=4)
        trainer = our_trainer(path, folder, options, "lerp", rows, weighted=penalty == "drift")
        found.append(adapter_of(trained(trainer)))
        assert trainer.state.global_step == 3
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert tensor.abs().max() > 0.02
            torch.testing.assert_close(other[name], tensor, **ADAM)


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_penalties_are_added_while_training_alone(
    objective: str, path: Path, tmp_path: Path
) -> None:
    losses = {}
    for l1, drift in ((0.0, 0.0), (2.0, 0.0), (0.0, 3.0), (2.0, 3.0)):
        options = TrainingOptions(objective=objective, l1=l1, drift=drift)  # type: ignore[arg-type]
        trainer = our_trainer(path, tmp_path / "t", options, weighted=True)
        for parameter in adapter_of(trainer.model):
            trainer.model.get_parameter(parameter).data += 0.1
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        model = trainer.model
        with torch.enable_grad():
            training = float(trainer.compute_loss(model.train(), dict(batch)))
            evaluated = float(trainer.compute_loss(model.eval(), dict(batch)))
            with watching(model) as watch:
                model(batch["input_ids"], attention_mask=batch["attention_mask"])
        size = float(watch.edit_size(batch["attention_mask"]))
        moved = float(trainer._drift(*find_layer(model, lessons.HOOK), ADAPTER, 0))
        assert min(size, moved) > 0.1
        assert training == pytest.approx(evaluated + l1 * size + drift * moved, rel=1e-5)
        losses[l1, drift] = evaluated
    assert len(set(losses.values())) == 1


@pytest.mark.parametrize("component", ["scale", "bias"])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_padding_does_not_count_in_the_penalty(
    objective: str, component: str, path: Path, tmp_path: Path
) -> None:
    """What a padded batch adds to the loss is the mean over the tokens of its rows, one by one."""
    rows = lessons.ROWS[objective](4, seed=2)
    added = []
    for l1 in (0.0, 3.0):
        options = TrainingOptions(objective=objective, l1=l1)  # type: ignore[arg-type]
        trainer = our_trainer(path, tmp_path / "t", options, component, rows=rows)
        model = trainer.model.train()
        for name in adapter_of(model):
            model.get_parameter(name).data += 0.1
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        with torch.enable_grad():
            added.append(float(trainer.compute_loss(model, dict(batch))))
    mask = batch["attention_mask"].bool()
    assert not mask.all(), "there is padding"
    sizes, n_tokens = 0.0, 0
    for ids, kept in zip(batch["input_ids"], mask, strict=True):
        with torch.enable_grad(), watching(model) as watch:
            model(ids[kept][None], use_cache=False)
        sizes += float(watch.edit_size(None)) * int(kept.sum())
        n_tokens += int(kept.sum())
    assert sizes > 0
    assert added[1] - added[0] == pytest.approx(3.0 * sizes / n_tokens, rel=1e-3)


@pytest.mark.parametrize("penalty", ["l1", "drift"])
def test_penalties_keep_an_adapter_small(penalty: str, path: Path, tmp_path: Path) -> None:
    sizes, drifts = [], []
    for weight in (0.0, 5.0):
        options = TrainingOptions(
            max_steps=10, learning_rate=0.1, evaluations=1, **{penalty: weight}
        )
        trainer = our_trainer(path, tmp_path / "t", options, "lerp", weighted=True)
        model = trained(trainer)
        with torch.enable_grad(), watching(model) as watch:
            model(tiny.contexts(8), use_cache=False)
        sizes.append(float(watch.edit_size(None)))
        drifts.append(float(trainer._drift(*find_layer(model, lessons.HOOK), ADAPTER, 0)))
    found = sizes if penalty == "l1" else drifts
    assert found[1] < 0.5 * found[0]


def matrix_of(model: Any) -> torch.Tensor:
    (found,) = adapter_of(model).values()
    return found


def test_sparse_entries_are_shrunk_after_a_step(path: Path, tmp_path: Path) -> None:
    """After one step the matrix is the unpenalised one with lr l1 taken off each entry."""
    options = TrainingOptions(max_steps=1, learning_rate=0.1)
    free, shrunk = (
        matrix_of(trained(our_trainer(path, tmp_path / "t", options, "sparse", l1=l1)))
        for l1 in (0.0, 0.4)
    )
    expected = free.sign() * (free.abs() - 0.1 * 0.4).clamp(min=0)
    torch.testing.assert_close(shrunk, expected)
    assert 0 < (free == 0).float().mean() < 0.5
    assert shrunk.abs().max() > 0.05


def test_sparse_entries_are_exactly_zero(path: Path, tmp_path: Path) -> None:
    found = {}
    options = TrainingOptions(max_steps=6, learning_rate=0.1, evaluations=1)
    for l1 in (0.0, 0.5, 50.0):
        trainer = our_trainer(path, tmp_path / "t", options, "sparse", l1=l1)
        found[l1] = float((matrix_of(trained(trainer)) == 0).float().mean())
    assert found[0.0] < found[0.5] < found[50.0] == 1


def test_proximal_steps_know_the_learning_rate_of_their_step(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(Sparse, "after_step", lambda self, rate: seen.append(rate))
    options = TrainingOptions(max_steps=4, learning_rate=0.1, accumulation=2, batch_size=4)
    trained(our_trainer(path, tmp_path, options, "sparse"))
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_proximal_steps_in_plain_trl(path: Path, tmp_path: Path) -> None:
    more = {"options": {"l1": 0.3}, "callbacks": [ProximalStep()]}
    matrix = matrix_of(trained(plain("sft", tmp_path, path, "sparse", **more)))
    never_fires = matrix.abs().sum(dim=0) == 0
    assert (matrix[:, ~never_fires] == 0).any()
    assert (matrix != 0).any()


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


# The held-out loss


def scored(trainer: Any) -> float:
    """The held-out loss of an adapter that does something."""
    for name in adapter_of(trainer.model):
        trainer.model.get_parameter(name).data += 0.1
    return float(trainer.evaluate()["eval_loss"])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("kind", ["text", "completion", "messages"])
def test_the_held_out_loss_is_a_mean_over_tokens(
    kind: str, batch_size: int, path: Path, tmp_path: Path
) -> None:
    """Summed over all tokens that count by an untouched model, divided by their number."""
    texts = lessons.texts(7, seed=9, least=1, most=20)
    made, untouched = beginnings.tokenizer("puts BOS"), tiny.network()
    rows: Any = {
        "text": texts,
        "completion": [{"prompt": "w1 w2", "completion": " " + row["text"]} for row in texts],
        "messages": [
            {
                "messages": [
                    {"role": "user", "content": "w1"},
                    {"role": "assistant", "content": row["text"]},
                ]
            }
            for row in texts
        ],
    }[kind]
    front = {"text": "<bos>", "completion": "<bos> w1 w2"}
    front["messages"] = "<bos> <user> w1 <end> <assistant>"
    end = "<end>" if kind == "messages" else "<eos>"
    total, n_tokens = 0.0, 0
    for row in texts:
        ids = torch.tensor([beginnings.ids(f"{front[kind]} {row['text']} {end}")])
        labels = ids.clone()
        labels[:, : len(front[kind].split())] = -100
        n_counted = int((labels[:, 1:] != -100).sum())
        total += float(untouched(ids, labels=labels).loss) * n_counted
        n_tokens += n_counted
    trainer = make_trainer(
        tiny.network(),
        made,
        lessons.config(path),
        TrainingOptions(batch_size=batch_size),
        gather(rows),
        gather(rows),
        tmp_path,
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / n_tokens, rel=1e-5)


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_the_held_out_loss_is_that_of_any_batches(
    objective: str, path: Path, tmp_path: Path
) -> None:
    """Of an adapter that edits; 7 examples leave a short last batch."""
    held = lessons.ROWS[objective](7, seed=9)
    found = []
    for batch_size in (1, 3, 8):
        options = TrainingOptions(objective=objective, batch_size=batch_size)  # type: ignore[arg-type]
        found.append(scored(our_trainer(path, tmp_path, options, held=held)))
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
    assert found[0] != pytest.approx(float(torch.log(torch.tensor(2.0))), abs=0.001)


def test_a_batch_that_is_not_finite_is_not_left_out(path: Path, tmp_path: Path) -> None:
    options = TrainingOptions(batch_size=2)
    trainer = our_trainer(path, tmp_path, options, held=lessons.texts(6, seed=9))
    compute_loss, losses = trainer.compute_loss, iter([1.0, float("nan"), 1.0])
    trainer.compute_loss = lambda *given, **named: compute_loss(*given, **named) * next(losses)
    assert not torch.tensor(trainer.evaluate()["eval_loss"]).isfinite()


@pytest.mark.parametrize(("n_steps", "evaluations"), [(19, 10), (7, 2), (20, 10), (3, 10), (1, 1)])
def test_it_is_scored_no_more_often_than_asked(
    n_steps: int, evaluations: int, tmp_path: Path, path: Path
) -> None:
    """Counted as the trainer does: after every so many steps, and after the last."""
    options = TrainingOptions(max_steps=n_steps, evaluations=evaluations)
    rows = gather(lessons.texts(8))
    trainer = make_trainer(
        tiny.network(),
        tiny.tokenizer(),
        lessons.config(path, "bias"),
        options,
        rows,
        rows,
        tmp_path,
    )
    times = -(-n_steps // trainer.args.eval_steps)
    assert min(n_steps, evaluations) / 2 < times <= evaluations
    assert trainer.args.save_steps == trainer.args.eval_steps
