"""A forecast of a training as it is asked for, by the command and from Python."""

from pathlib import Path
from typing import Any

from ..core.checks import check_packages, read_number
from ..core.device import check_device
from ..core.progress import Reporter
from ..core.records import Allowlist
from ..core.records.training import TrainingForecast
from ..core.settings import Setting
from .asked import (
    AUTO,
    Indices,
    Rows,
    allowed_by,
    check_names,
    checked_options,
    given_examples,
    read_rows,
    rule_of,
)
from .components.component import check_options


def forecast(
    setting: Setting,
    /,
    data: Rows,
    *,
    reference: Rows,
    allowlist: Allowlist | str | Path | None = None,
    features: Indices | None = None,
    component: str = "scale",
    select: int | str = AUTO,
    by: str = "gradient",
    eval_data: Rows | None = None,
    eval_share: float = 0.1,
    beta2: float | str = AUTO,
    device: str = "cpu",
    progress: bool = True,
    **options: Any,
) -> TrainingForecast:
    """Foresee what training an adapter would gain and what it would cost, without training it.

    The fall of the held-out loss and KL on reference text, to second order in what is learnt, the
    optimiser's steps simulated (see :mod:`cleansteer.adapters.forecasting`); and how many downstream
    features the edit would move there.

    Args:
        setting: names model, SAE and downstream SAE.
        data: examples, as for :func:`cleansteer.train`; objective ``sft`` alone.
        reference: texts on which little shall change.
        allowlist: only its features are edited; neither this nor ``features``: all.
        features: only these are edited, in place of an allowlist.
        component: ``scale`` or ``bias``, which are linear in what they learn.
        select: as for :func:`cleansteer.train`, as what follows.
        by: what makes a feature worth training.
        eval_data: examples to score.
        eval_share: share of ``data`` that is held out where ``eval_data`` is not given.
        beta2: AdamW's beta2, or ``auto``.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: whether progress bars are shown, on stderr.
        options: fields of :class:`~cleansteer.core.training.TrainingOptions`.

    Raises:
        InputError: anything given is wrong, or does not fit together.
        TypeError: an argument is unknown or of another type.

    """
    check_names(options, "forecast")
    check_packages("peft", "trl")
    check_device(device)
    check_options(component, {})
    rule = rule_of(select, by, has_reference=True)
    if beta2 != AUTO:
        options["beta2"] = read_number("--beta2", beta2) if isinstance(beta2, str) else beta2
    checked = checked_options(options, has_reference=True)
    examples, evaluated = given_examples(data, eval_data, eval_share, checked)
    texts = read_rows(reference, "reference", "sft")
    allowed = allowed_by(allowlist, features)
    from .finetuning import FineTuning, Recipe

    job = FineTuning(
        setting=setting,
        options=checked,
        examples=examples,
        evaluated=evaluated,
        out=Path(),
        reporter=Reporter(quiet=not progress),
        device=device,
    )
    return job.forecast(Recipe(component, {}, allowed, rule, beta2 == AUTO, texts))
