"""What a weight of the drift penalty keeps, and what it costs.

An adapter on the features that a screened run predicts cleanest is trained on the docstrings of a
package that the miniature models have never seen; docstrings of other packages are the reference. For
every weight the fall of the held-out loss, and drift and KL on the reference, as means over seeds with
the least and the largest: ``python -m cleansteer.benchmarks.drift SETTING --run RUN``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ..adapters.allowlist import Allowed
from ..adapters.examples import Examples, gather
from ..adapters.finetuning import FineTuning, Recipe
from ..core.progress import Reporter
from ..core.records import TrainingRecord
from ..core.settings import Setting
from ..core.tables import read_table
from ..core.training import TrainingOptions
from ..miniatures.text import HELD_OUT_PACKAGES, TRAINED_PACKAGES
from ..miniatures.text import gather as docstrings
from ..predictor.verdict.choice import choose_allowed
from ..study.catalogue import load_setting

_WEIGHTS = "0,0.001,0.003,0.01,0.1"
_REFERENCE = 60


def train(
    setting: Setting,
    recipe: Recipe,
    texts: tuple[Examples, Examples],
    options: TrainingOptions,
) -> TrainingRecord:
    """One training, of which nothing but the record is kept."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "adapter"
        return FineTuning(setting, options, *texts, out, Reporter(quiet=True)).adapter(recipe)


def row(weight: float, records: Sequence[TrainingRecord]) -> str:
    """A row of the table: a mean over trainings, and the least and largest."""
    cells = [f"{weight:g}"]
    columns: list[list[float]] = [[], [], []]
    for record in records:
        losses, effects = record.metrics, record.effects
        assert losses is not None
        assert effects is not None
        assert effects.drift is not None
        assert effects.kl is not None
        found = (losses.before - losses.after, effects.drift.after, effects.kl.after)
        for column, value in zip(columns, found, strict=True):
            column.append(value)
    for column in columns:
        mean = sum(column) / len(column)
        cells.append(f"{mean:.3f} [{min(column):.3f}, {max(column):.3f}]")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", help="a miniature's")
    parser.add_argument("--run", type=Path, required=True, help="its screened run")
    parser.add_argument("--package", default="sympy", choices=HELD_OUT_PACKAGES)
    parser.add_argument("--component", default="bias")
    parser.add_argument("--learning-rate", type=float, default=0.3)
    parser.add_argument("--weights", default=_WEIGHTS)
    parser.add_argument("--count", type=int, default=100, help="features")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    setting = load_setting(given.setting)
    chosen, _ = choose_allowed(read_table(given.run / "ranking.parquet"), given.count)
    topic, other = (docstrings(p, "train", 0) for p in ((given.package,), TRAINED_PACKAGES))
    rows = [{"text": text} for text in topic]
    texts = gather(rows[40:1640]), gather(rows[:40])
    reference = gather([{"text": text} for text in other[:_REFERENCE]])
    recipe = Recipe(given.component, {}, Allowed(chosen), reference=reference)
    sys.stdout.write("| weight | fall of the loss | drift | KL |\n|---|---|---|---|\n")
    for weight in map(float, given.weights.split(",")):
        records = [
            train(
                setting,
                recipe,
                texts,
                TrainingOptions(
                    max_steps=given.steps,
                    batch_size=16,
                    max_length=128,
                    learning_rate=given.learning_rate,
                    drift=weight,
                    evaluations=5,
                    seed=seed,
                ),
            )
            for seed in range(given.seeds)
        ]
        sys.stdout.write(row(weight, records) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
