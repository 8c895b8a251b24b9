"""A training that is foreseen: features chosen, its course simulated, what it would move downstream."""

from typing import TYPE_CHECKING, Any

import torch

from ..core.errors import InputError
from ..core.records.training import TrainingForecast
from ..core.saes import hook_of
from .budget import gain_within
from .choosing import Choosing
from .config import Target
from .downstream import count_moved, first_rows
from .encoding import encode
from .forecasting import Schedule, forecast
from .gradients import Site, TextGradients, text_gradients
from .model import load_target
from .opening import open_shared
from .padding import Row, plain_row
from .targets import Opened
from .trainers import check_left, steps

if TYPE_CHECKING:
    from .finetuning import FineTuning, Recipe

LINEAR = ("scale", "bias")


def foresee(
    job: "FineTuning",
    recipe: "Recipe",
    network: Any,
    tokenizer: Any,
    opened: Opened,
) -> TrainingForecast:
    """What a training would gain and cost.

    Args:
        job: the training.
        recipe: of its adapter.
        network: the model without adapters.
        tokenizer: its tokenizer.
        opened: place and SAE, with the allowed features.

    Raises:
        InputError: the component is not linear, the objective no fine-tuning on texts, or there is no
            reference.

    """
    options, component = job.options, recipe.component
    if component not in LINEAR:
        raise InputError(
            f"--component {component} cannot be forecast: what it learns is not linear; expected "
            f"{' or '.join(LINEAR)}; train it"
        )
    if options.objective != "sft":
        raise InputError("--objective dpo cannot be forecast; expected sft; train it")
    for name in ("l1", "drift"):
        if getattr(options, name):
            raise InputError(
                f"--{name} {getattr(options, name):g} cannot be forecast; expected none; leave it out"
            )
    rows = job.tokens_of(network, tokenizer, recipe.reference)
    if not rows:
        raise InputError("a forecast needs text on which little shall change; give --reference")
    target = opened.target
    config = job.config_of([target], recipe)
    choosing = Choosing(network, tokenizer, options, job.examples, rows, job.reporter)
    chosen = choosing.choose(config, [opened.n_allowed], recipe.rule, recipe.auto_beta2)
    target = target.with_features(chosen.features[0])
    fit = load_target(target, network)
    site = Site(fit.place, fit.part, component == "scale", config.which)
    data, held_out = (
        encode(examples.rows, tokenizer, options, options.max_length)
        for examples in (job.examples, job.evaluated)
    )
    check_left(data, "train on", options.max_length)
    check_left(held_out, "score", options.max_length)

    def gradients(name: str, texts: list[Row], seed: int | None) -> TextGradients:
        with job.reporter.bar(name, len(texts)) as tick:
            return text_gradients(network, [site], texts, seed, tick)

    n_steps = steps(options, len(data.rows))
    found = forecast(
        gradients("gradients of the data", list(data.rows), None),
        gradients("its curvature", list(data.rows), options.seed),
        gradients("held-out gradients", list(held_out.rows), None),
        chosen.sampled
        or gradients("curvature of the reference", [plain_row(row) for row in rows], options.seed),
        Schedule(
            n_steps,
            options.batch_size * options.accumulation,
            options.learning_rate,
            chosen.beta2,
            options.seed,
        ),
    )
    budget = options.kl_budget
    return TrainingForecast(
        setting=job.setting.name,
        component=component,
        features=target.features,
        n_features=site.part.n_features,
        chosen=chosen.told or ("all" if target.features is None else "allowed"),
        n_steps=n_steps,
        learning_rate=options.learning_rate,
        beta2=chosen.beta2,
        gain=found.gain,
        kl=found.kl,
        moved=_moved(job, network, site, torch.as_tensor(found.learnt), rows),
        kl_budget=budget,
        gain_at_budget=None if budget is None else gain_within(budget, found.gain, found.kl),
    )


def _moved(
    job: "FineTuning", network: Any, site: Site, learnt: torch.Tensor, rows: list[list[int]]
) -> float:
    source, folder = job.setting.downstream_sae, job.setting.folder
    sae, fingerprint = open_shared(source, folder)
    below = Target.of(source, folder, hook_of(sae, source), None, fingerprint)
    some = first_rows(rows)
    with job.reporter.bar("downstream", len(some)) as tick:
        return count_moved(network, site, learnt, load_target(below, network), some, tick)
