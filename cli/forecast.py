"""``cleansteer forecast``: what a training would gain and cost."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .learning import (
    AllowlistOption,
    Beta2Option,
    ByOption,
    DataOption,
    EvalDataOption,
    EvalShareOption,
    FeaturesOption,
    SelectOption,
    selected,
)
from .models import NONE_GIVEN, Given, options_of
from .options import DeviceOption, JsonOption, SettingArgument, check_packages

if TYPE_CHECKING:
    from ..core.training import TrainingOptions


def _training_options() -> "type[TrainingOptions]":
    from ..core.training import TrainingOptions

    return TrainingOptions


@options_of(
    _training_options,
    leave_out=(
        "beta2",
        "objective",
        "dpo_beta",
        "l1",
        "drift",
        "evaluations",
        "log_steps",
        "patience",
        "gradient_checkpointing",
        "report_to",
    ),
)
def forecast(
    setting: SettingArgument,
    data: DataOption,
    reference: Annotated[
        Path,
        typer.Option("--reference", metavar="FILE", help="Texts on which little shall change."),
    ],
    component: Annotated[
        str,
        typer.Option("--component", metavar="scale|bias", help="What is done to the latents."),
    ] = "scale",
    allowlist: AllowlistOption = None,
    features: FeaturesOption = None,
    select: SelectOption = "auto",
    by: ByOption = "gradient",
    eval_data: EvalDataOption = None,
    eval_share: EvalShareOption = 0.1,
    beta2: Beta2Option = "auto",
    options: Given = NONE_GIVEN,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Foresee what training an adapter would gain and what it would cost, without training it.

    The fall of the held-out loss, KL on the reference and how many downstream features move there, to
    second order in what is learnt; the optimiser's steps are simulated. A few backward passes.
    """
    check_packages("aenum", "peft", "trl")
    from rich.console import Console

    from ..adapters import forecast
    from ..study.catalogue import load_setting

    found = forecast(
        load_setting(setting),
        data,
        reference=reference,
        allowlist=allowlist,
        features=features,
        component=component,
        select=selected(select),
        by=by,
        eval_data=eval_data,
        eval_share=eval_share,
        beta2=beta2,
        device=device,
        **options,
    )
    if json:
        sys.stdout.write(found.to_json() + "\n")
        return
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{found.component} on {found.n_features} features ({found.chosen})")
    console.print(
        f"{found.n_steps} steps would lower the held-out loss by {found.gain:.4f} nats a token, at a KL "
        f"of {found.kl:.4g} on the reference"
    )
    if found.moved is not None:
        console.print(f"{found.moved:.1f} downstream features a token would move there")
    if found.gain_at_budget is not None:
        console.print(
            f"Within a KL of {found.kl_budget:g} by {found.gain_at_budget:.4f} nats a token"
        )
