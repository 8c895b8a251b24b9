"""What tracking and a budget of KL add to a training step, in one run.

The same training of 100 features of `mini-gpt2-relu` by TRL, from its first step to its last: plain, with
every feature tracked at each tenth step, with a budget of KL. Ratios are medians over rounds, in each of
which every way takes its turn; the order changes.
"""

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from cleansteer.adapters import SaeAdapterConfig, TrackFeatures
from cleansteer.adapters.budget import Budgeted, Parts
from cleansteer.adapters.examples import gather
from cleansteer.adapters.reference import Reference, reference_rows
from cleansteer.adapters.trainers import make_trainer, quiet_training
from cleansteer.benchmarks.adapters.learning import target_of
from cleansteer.core.networks import load_network
from cleansteer.core.training import TrainingOptions
from cleansteer.miniatures.text import TRAINED_PACKAGES
from cleansteer.miniatures.text import gather as docstrings
from cleansteer.study.catalogue import load_setting
from transformers import TrainerCallback

WAYS = ("plain", "tracked", "budget")


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds from the first step's begin to the last one's end."""

    def on_train_begin(self, *given: Any, **named: Any) -> None:
        self._begun = time.perf_counter()

    def on_train_end(self, *given: Any, **named: Any) -> None:
        self.seconds: float = time.perf_counter() - self._begun


def seconds(way: str, given: argparse.Namespace, texts: list[str], others: list[str]) -> float:
    """Of one training, a step."""
    setting = load_setting("mini-gpt2-relu")
    network, tokenizer = load_network(setting, attention=None)
    network.requires_grad_(False)
    target = target_of(setting, setting.sae).with_features(list(range(0, 1000, 10)))
    budget = 0.02 if way == "budget" else None
    options = TrainingOptions(
        max_steps=given.steps,
        batch_size=given.batch,
        max_length=128,
        evaluations=1,
        log_steps=10,
        kl_budget=budget,
        learning_rate=0.1,
    )
    reference = None
    if budget is not None:
        rows = reference_rows(network, tokenizer, others, 128, bos=True)
        parts = Parts.of(rows)
        reference = Reference(parts.scaled[:1], None, Budgeted(budget, parts, 0))
    with TemporaryDirectory() as folder, quiet_training():
        tracked = TrackFeatures(file=Path(folder) / "t.parquet") if way == "tracked" else None
        trainer = make_trainer(
            network,
            tokenizer,
            SaeAdapterConfig(targets=[target.to_dict()], component=given.component),
            options,
            gather([{"text": text} for text in texts]),
            None,
            Path(folder) / "checkpoints",
            reference,
            tracked=tracked,
        )
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    each: float = clock.seconds / given.steps
    return each


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--component", default="scale")
    given = parser.parse_args()
    texts = docstrings(("sympy",), "train", 0)[:1000]
    others = docstrings(TRAINED_PACKAGES, "validation", 0)[:600]
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(given.rounds + 1):
        for way in WAYS[number % 3 :] + WAYS[: number % 3]:
            found = seconds(way, given, texts, others)
            if number:  # the first warms up
                times[way].append(found)
    print(f"{given.component}, batch {given.batch} x 128, {torch.get_num_threads()} threads")
    for way in WAYS:
        ratios = [a / b for a, b in zip(times[way], times["plain"], strict=True)]
        print(
            f"{way:8} {statistics.median(times[way]) * 1e3:6.0f} ms a step, "
            f"{statistics.median(ratios):.3f} x plain ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
