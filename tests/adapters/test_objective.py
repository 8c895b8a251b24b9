"""What is minimised, and what is scored."""

from pathlib import Path
from typing import Any

import beginnings
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters.examples import gather
from cleansteer.adapters.trainers import make_trainer
from cleansteer.adapters.training import prepare
from cleansteer.adapters.watch import watching
from cleansteer.core.training import TrainingOptions
from coaching import adapter_of, our_trainer, trained

ADAM = {"rtol": 1e-3, "atol": 1e-5}
"""Adam's quotients of gradients that differ by rounding."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


# Penalties


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
        moved = float(trainer._drift(model, 0))
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
        drifts.append(float(trainer._drift(model, 0)))
    found = sizes if penalty == "l1" else drifts
    assert found[1] < 0.5 * found[0]


# What is scored


@pytest.mark.parametrize("component", ["lerp", "sparse"])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_what_an_adapter_changes_is_scored(
    objective: str, component: str, path: Path, tmp_path: Path
) -> None:
    options = TrainingOptions(objective=objective, l1=2.0, drift=3.0, batch_size=3)  # type: ignore[arg-type]
    own = {"l1": 0.25} if component == "sparse" else {}
    held = lessons.ROWS[objective](7, seed=9)
    trainer = our_trainer(path, tmp_path, options, component, held=held, weighted=True, **own)
    model = trainer.model
    start = trainer.evaluate()
    assert start["eval_edit"] == start["eval_drift"] == 0
    assert start["eval_kl"] == pytest.approx(0, abs=1e-6)
    assert start["eval_objective"] == start["eval_loss"]
    lessons.disturb(model)
    found = trainer.evaluate()
    # One sequence at a time, with no padding.
    size, n_tokens = 0.0, 0
    for batch in trainer.get_eval_dataloader():
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
            with watching(model, gradients=False) as watch:
                model(ids[mask][None], use_cache=False)
            size += float(watch.edit_size(None)) * int(mask.sum())
            n_tokens += int(mask.sum())
    assert found["eval_edit"] == pytest.approx(size / n_tokens, rel=1e-4)
    assert found["eval_drift"] == pytest.approx(float(trainer._drift(model)), rel=1e-5)
    assert found["eval_kl"] == pytest.approx(trainer._reference.divergence(model), rel=1e-5)
    expected = found["eval_loss"] + 2 * found["eval_edit"] + 3 * found["eval_drift"]
    if component == "sparse":
        (matrix,) = adapter_of(model).values()
        expected += 0.25 * float(matrix.abs().sum())
    assert found["eval_objective"] == pytest.approx(expected, rel=1e-5)
    assert min(found[f"eval_{name}"] for name in ("edit", "drift", "kl")) > 0.01


def test_the_best_adapter_is_that_of_the_least_objective(path: Path, tmp_path: Path) -> None:
    """Though the loss falls on."""
    options = TrainingOptions(max_steps=5, learning_rate=0.1, evaluations=5, batch_size=8)
    rows = lessons.examples("sft", 16)
    network = tiny.network(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).requires_grad_(False)
    config = lessons.config(path, "bias")
    done = prepare(network, tiny.tokenizer(), config, options, rows, rows, tmp_path / "out")
    scores, objectives = done.trainer._scores, iter([9.0, 8.0, 6.0, 5.0, 7.0, 8.0])
    done.trainer._scores = lambda model: scores(model) | {"objective": next(objectives)}
    with torch.enable_grad():
        found = done.run()
    scored = [entry for entry in found.history if entry.eval_loss is not None]
    assert [entry.step for entry in scored] == list(range(6))
    assert min(scored, key=lambda entry: entry.eval_loss or 0.0).step == 5
    assert found.losses.after == scored[3].eval_loss
    assert found.effects.objective is not None
    assert found.effects.objective.after == 5
    assert found.effects.edit is not None
    assert found.effects.edit.after == scored[3].eval_edit
    done.trainer._scores = scores
    found.model.eval()
    again = done.trainer.evaluate()["eval_loss"]
    assert again == pytest.approx(scored[3].eval_loss, rel=1e-6)


def test_the_loss_of_a_step_is_a_mean_over_its_tokens(path: Path, tmp_path: Path) -> None:
    """Of what is learned: a text's first token is predicted by nothing."""
    rows = lessons.texts(6, seed=2, least=1, most=4)
    options = TrainingOptions(max_steps=1, batch_size=3, accumulation=2, evaluations=1)
    trainer = our_trainer(path, tmp_path, options, "bias", rows=rows)
    expected = lessons.mean_loss(tiny.network(), rows)
    trained(trainer)
    (found,) = (entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert found == pytest.approx(expected, rel=1e-3)


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
