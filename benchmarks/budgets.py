"""Does a budget of KL hold where nothing was fitted, and what is learnt within it?

Adapters are trained with ``--kl-budget`` on the docstrings of a package that the miniature models have
never seen, with those of other packages for a reference; the KL of each is measured on a third of the
reference that nothing was fitted to. Beside it the gain of an unconstrained training at the step at which
its KL there is the same: ``python -m cleansteer.benchmarks.budgets SETTING --out FILE.csv``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from ..adapters.allowlist import Allowed
from ..adapters.budget import Parts
from ..adapters.config import SaeAdapterConfig
from ..adapters.encoding import encode
from ..adapters.examples import Examples, gather
from ..adapters.finetuning import FineTuning, Recipe
from ..adapters.reference import divergence
from ..adapters.relevance import Rule
from ..adapters.trainers import baseline_config
from ..core.choices import BASELINES
from ..core.networks import load_network
from ..core.progress import Reporter
from ..core.records import TrainingRecord
from ..core.settings import Setting
from ..core.tables import write_text
from ..core.training import TrainingOptions
from ..miniatures.text import HELD_OUT_PACKAGES, TRAINED_PACKAGES
from ..miniatures.text import gather as docstrings
from ..study.catalogue import load_setting
from .adapters.design import LEARNING_RATES
from .adapters.frontier import gain_at, set_values
from .adapters.learning import learn, target_of
from .adapters.scores import token_loss

_COMPONENTS = "scale,bias,lowrank,lora"
_BUDGETS = "0.005,0.02,0.1"
_REFERENCE = 1500
_EVALUATED = 80
_POINTS = 12
"""Steps at which an unconstrained training is looked at."""
_RULE = Rule(100, by="fisher")
"""The features that are trained."""


class Trainings:
    """Trainings of one setting on one topic.

    Args:
        setting: names model and SAE.
        package: the topic.
        steps: optimiser steps.
        seed: of everything.

    """

    def __init__(self, setting: Setting, package: str, steps: int, seed: int) -> None:
        self.setting, self.steps, self.seed = setting, steps, seed
        topic = [{"text": text} for text in docstrings((package,), "train", seed)]
        other = docstrings(TRAINED_PACKAGES, "validation", seed)
        self._texts = gather(topic[_EVALUATED:]), gather(topic[:_EVALUATED])
        self._reference: Examples = gather([{"text": text} for text in other[:_REFERENCE]])

    def options(self, component: str, budget: float | None) -> TrainingOptions:
        """How one is trained."""
        return TrainingOptions(
            learning_rate=LEARNING_RATES[component],
            max_steps=self.steps,
            batch_size=16,
            max_length=64,
            evaluations=5,
            kl_budget=budget,
            seed=self.seed,
        )

    def within(self, component: str, budget: float) -> TrainingRecord:
        """A training with a budget; its record alone is kept."""
        with TemporaryDirectory() as folder:
            options, reporter = self.options(component, budget), Reporter(quiet=True)
            job = FineTuning(
                self.setting, options, *self._texts, Path(folder) / "adapter", reporter
            )
            if component in BASELINES:
                return job.baseline("lora", 8, self._reference)
            recipe = Recipe(component, {}, Allowed(None), _RULE, reference=self._reference)
            return job.adapter(recipe)

    def _config(self, component: str, features: list[int] | None) -> Any:
        if component in BASELINES:
            return baseline_config("lora", 8)
        target = target_of(self.setting, self.setting.sae).with_features(features)
        return SaeAdapterConfig(targets=[target.to_dict()], component=component, seed=self.seed)

    def unconstrained(self, component: str, features: list[int] | None) -> pd.DataFrame:
        """A training of these features without a budget: ``gain``, and ``kl`` on the third part of the
        reference, after steps on its way; ``strength`` is the step.
        """
        with TemporaryDirectory() as folder:
            options = self.options(component, None)
            job = FineTuning(
                self.setting, options, *self._texts, Path(folder), Reporter(quiet=True)
            )
            network, tokenizer = load_network(self.setting, attention=None)
            network.requires_grad_(False)
            rows = job.tokens_of(network, tokenizer, self._reference) or []
            held_out = Parts.of(rows).held_out
            encoded = encode(self._texts[1].rows, tokenizer, options, options.max_length)
            scored = encoded.rows
            before = token_loss(network, scored)
            steps = sorted(
                {max(1, self.steps * (i + 1) ** 2 // _POINTS**2) for i in range(_POINTS)}
            )
            model, waypoints = learn(
                network,
                tokenizer,
                self._config(component, features),
                options,
                self._texts[0],
                steps,
            )
        found = []
        for step, values in waypoints.items():
            set_values(model, values)
            kl, _ = divergence(model, held_out)
            found.append({"strength": step, "kl": kl, "gain": before - token_loss(model, scored)})
        return pd.DataFrame(found).assign(step=0)


def compare(
    setting: Setting,
    package: str,
    components: Sequence[str],
    budgets: Sequence[float],
    steps: int,
    seed: int,
    reporter: Reporter,
) -> pd.DataFrame:
    """A row for each component and budget: ``kl`` on the reference that the edit was scaled by,
    ``held_out`` (on the part that nothing was fitted to), ``ratio`` (that over the budget), ``gain``,
    ``gamma`` and ``unconstrained`` (the gain of a training without a budget at the same KL).
    """
    trainings, rows = Trainings(setting, package, steps, seed), []
    with reporter.bar(setting.name, len(components) * (len(budgets) + 1)) as advance:
        for component in components:
            plain: pd.DataFrame | None = None
            for budget in budgets:
                record = trainings.within(component, budget)
                advance(1)
                if plain is None:
                    plain = trainings.unconstrained(component, record.features)
                    advance(1)
                assert record.metrics is not None
                assert record.budget is not None
                kept = record.budget
                rows.append(
                    {
                        "setting": setting.name,
                        "component": component,
                        "budget": budget,
                        "kl": kept.kl,
                        "held_out": kept.held_out,
                        "ratio": kept.held_out / budget,
                        "gamma": kept.gamma,
                        "gain": record.metrics.before - record.metrics.after,
                        "unconstrained": gain_at(plain, "kl", kept.held_out),
                    }
                )
    return pd.DataFrame(rows)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", help="a miniature's")
    parser.add_argument("--out", type=Path, required=True, help="table, .csv")
    parser.add_argument("--package", default="sympy", choices=HELD_OUT_PACKAGES)
    parser.add_argument("--components", default=_COMPONENTS)
    parser.add_argument("--budgets", default=_BUDGETS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    reporter = Reporter()
    table = compare(
        load_setting(given.setting),
        given.package,
        given.components.split(","),
        [float(budget) for budget in given.budgets.split(",")],
        given.steps,
        given.seed,
        reporter,
    )
    write_text(given.out, table.to_csv(index=False))
    reporter.console.print(table.to_string(index=False, float_format=lambda v: f"{v:.4f}"))


if __name__ == "__main__":
    main()
