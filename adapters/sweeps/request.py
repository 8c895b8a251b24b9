"""A sweep as it is asked for, by the command and from Python: checked, then done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.checks import check_packages, check_type
from ...core.device import check_device
from ...core.errors import InputError
from ...core.progress import Reporter
from ...core.records import Allowlist
from ...core.records.sweep import Sampler, SearchSpace, SweepRecord
from ...core.settings import Setting
from ..asked import (
    AUTO,
    IN_MEMORY,
    Indices,
    Rows,
    allowed_by,
    check_names,
    check_out,
    checked_options,
    given_examples,
    read_rows,
    rule_of,
)
from ..examples import Examples
from ..targets import Targets, wanted_by
from .space import DEFAULT_RATES, Values, options_of, read_space

N_TRIALS = 20
"""Trials of a space that has any number of them, where nobody says how many."""
_HALF = 0.5
_RECORD = "sweep.json"


def sweep(
    setting: Setting,
    /,
    data: Rows,
    *,
    out: str | Path,
    learning_rate: Values = DEFAULT_RATES,
    component: Values = "scale",
    beta2: Values = AUTO,
    select: Values = AUTO,
    trials: int | None = None,
    sampler: str | None = None,
    allowlist: Allowlist | str | Path | None = None,
    features: Indices | None = None,
    targets: Targets | None = None,
    component_options: Mapping[str, float] | None = None,
    by: str = "gradient",
    eval_data: Rows | None = None,
    eval_share: float = 0.1,
    reference: Rows | None = None,
    keep_all: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    **options: object,
) -> SweepRecord:
    """Try several trainings, and keep the adapter of the one with the least held-out loss.

    Held-out examples are split in two, by prompts: one half chooses the best evaluation of each training
    and the best training, so that its loss there is lower than it is elsewhere; the other half is scored
    once, of every trial, and tells that. With ``kl_budget`` all edits are held to the same KL on the
    reference, and compared at it.

    Args:
        setting: names model and SAE; with ``targets`` the model alone.
        data: examples, as for :func:`cleansteer.train`.
        out: an empty or new directory.
        learning_rate: values to try, or ``LOW:HIGH``: any between, evenly on a logarithmic scale.
        component: names of components to try.
        beta2: AdamW's beta2, numbers or ``auto``, to try.
        select: numbers of features, ``all`` or ``auto``, to try.
        trials: how many trainings; None: of lists every combination, of a range 20.
        sampler: ``grid``: every combination, in random order; ``tpe``: by Optuna's tree-structured
            Parzen estimator; None: a grid of lists, and tpe where there is a range.
        allowlist: as for :func:`cleansteer.train`, as what follows.
        features: in place of an allowlist.
        targets: SAEs and hook points, in place of the setting's SAE.
        component_options: numbers that components take, each those that it knows.
        by: what makes a feature worth training.
        eval_data: examples to score.
        eval_share: share of ``data`` that is held out where ``eval_data`` is not given.
        reference: texts that KL is measured on.
        keep_all: whether the adapters of all trials are kept, in ``trials``.
        resume: whether to go on with an interrupted sweep in ``out``, or to add trials to one; it comes
            to what an uninterrupted one does.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: whether a progress bar is shown, on stderr.
        options: fields of :class:`~cleansteer.core.training.TrainingOptions`, of all trials; ``seed`` is
            that of the sampler as well.

    Returns:
        What ``sweep.json`` holds.

    Raises:
        InputError: anything given is wrong, or does not fit together; nothing is written then.
        TypeError: an argument is unknown or of another type.

    """
    check_type("setting", setting, Setting, "a setting (see cleansteer.load_setting)")
    check_type("out", out, (str, Path), "a directory's path")
    check_type("trials", trials, (int, type(None)), "a number of trainings")
    check_names(options, "sweep", without=("learning_rate", "beta2"))
    check_packages("peft", "trl", "optuna")
    out = Path(out)
    check_out(out, resume, _RECORD, "sweep")
    check_device(device)
    space = read_space(learning_rate, component, beta2, select)
    numbers = options_of(space.components, component_options or {})
    chosen, n_trials = _how(space, sampler, trials)
    rule = rule_of(AUTO, by, reference is not None)
    checked = checked_options(options, reference is not None)
    examples, evaluated = given_examples(data, eval_data, eval_share, checked)
    judged, fresh = _halves(evaluated, checked.seed)
    texts = None if reference is None else read_rows(reference, "reference", "sft")
    wanted = wanted_by(targets, allowlist, features)
    allowed = allowed_by(allowlist, features)
    from ..finetuning import FineTuning, Recipe
    from .trials import Sweep

    job = FineTuning(
        setting=setting,
        options=checked,
        examples=examples,
        evaluated=judged,
        out=out,
        reporter=Reporter(quiet=not progress),
        data_name=Path(data).name if isinstance(data, str | Path) else IN_MEMORY,
        device=device,
        resume=resume,
        fresh=fresh,
    )
    recipe = Recipe("scale", {}, allowed, rule, True, texts, targets=wanted)
    return Sweep(job, recipe, numbers, space, chosen, n_trials, keep_all).run()


def _how(space: SearchSpace, sampler: Any, trials: int | None) -> tuple[Sampler, int]:
    """The sampler, and how many trials there are."""
    if sampler not in (None, "tpe", "grid"):
        raise InputError(
            f"--sampler {sampler!r:.40} is not known; expected tpe or grid; choose one"
        )
    if sampler == "grid" and space.is_range:
        low, high = space.learning_rates
        raise InputError(
            f"--sampler grid with --learning-rate {low:g}:{high:g}, which has any number of values; "
            "expected a list of them; give one, or take tpe"
        )
    if trials is not None and trials < 1:
        raise InputError(f"--trials {trials}: expected 1 or more; change it")
    chosen: Sampler = sampler or ("tpe" if space.is_range else "grid")
    return chosen, min(trials or space.size or N_TRIALS, space.size or trials or N_TRIALS)


def _halves(evaluated: Examples, seed: int) -> tuple[Examples, Examples]:
    """Held-out examples to choose by, and to tell by."""
    if evaluated.n_prompts < 2:
        raise InputError(
            f"the held-out examples have {evaluated.n_prompts} prompt; expected 2 at least, half of them "
            "to choose by and half to tell what was chosen; raise --eval-share, or give --eval-data"
        )
    return evaluated.held_out(_HALF, seed)
