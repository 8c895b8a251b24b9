"""``cleansteer sweep``: several trainings, and the best of them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.choices import COMPONENTS
from .learning import (
    AllowlistOption,
    ByOption,
    DataOption,
    EvalDataOption,
    EvalShareOption,
    FeaturesOption,
    TargetsOption,
    numbers_of,
)
from .models import NONE_GIVEN, Given, options_of
from .options import DeviceOption, JsonOption, SettingArgument, check_packages

if TYPE_CHECKING:
    from ..core.training import TrainingOptions


def _training_options() -> "type[TrainingOptions]":
    from ..core.training import TrainingOptions

    return TrainingOptions


@options_of(_training_options, leave_out=("beta2", "learning_rate"))
def sweep(
    setting: SettingArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Empty or new directory.")],
    learning_rate: Annotated[
        str,
        typer.Option(
            "--learning-rate",
            metavar="LOW:HIGH|A,B,...",
            help="Learning rates to try: any of a range, evenly on a logarithmic scale, or those of a "
            "list.",
        ),
    ] = "0.001:0.3",
    component: Annotated[
        str,
        typer.Option(
            "--component",
            metavar="A,B,...",
            help=f"Components to try: {', '.join(COMPONENTS)}.",
        ),
    ] = "scale",
    beta2: Annotated[
        str,
        typer.Option(
            "--beta2",
            metavar="auto,A,B,...",
            help="AdamW's beta2 to try; auto: by how often the features fire.",
        ),
    ] = "auto",
    select: Annotated[
        str,
        typer.Option(
            "--select",
            metavar="auto,all,A,B,...",
            help="How many of the allowed features to try, those that are worth most on the data.",
        ),
    ] = "auto",
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", help="How many trainings [default: every combination; 20 of a range]."
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            metavar="tpe|grid",
            help="How they are chosen: by Optuna's tree-structured Parzen estimator, or every "
            "combination, in random order [default: tpe with a range, grid with lists alone].",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=NUMBER",
            help="An option of the components that take it; repeatable.",
        ),
    ] = None,
    allowlist: AllowlistOption = None,
    features: FeaturesOption = None,
    target: TargetsOption = None,
    by: ByOption = "gradient",
    eval_data: EvalDataOption = None,
    eval_share: EvalShareOption = 0.1,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="FILE",
            help="JSON lines with text, on which drift and KL are measured; --kl-budget needs it.",
        ),
    ] = None,
    options: Given = NONE_GIVEN,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Keep the adapters of all trials, in DIR/trials.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an interrupted sweep in --out, or add trials to one."
        ),
    ] = False,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Try several trainings, and keep the adapter of the one with the least held-out loss, in DIR/best.

    Held-out examples are split in two: one half chooses the best evaluation of each training and the best
    training, the other is scored once and tells what that is worth. With --kl-budget all are compared at
    the same KL on the reference. sweep.parquet has a row for every trial, sweep.md the best of them.
    """
    check_packages("aenum", "peft", "trl", "optuna")
    from ..adapters import sweep
    from ..study.catalogue import load_setting

    record = sweep(
        load_setting(setting),
        data,
        out=out,
        learning_rate=learning_rate,
        component=component,
        beta2=beta2,
        select=select,
        trials=trials,
        sampler=sampler,
        allowlist=allowlist,
        features=features,
        targets=target,
        component_options=numbers_of(option or []),
        by=by,
        eval_data=eval_data,
        eval_share=eval_share,
        reference=reference,
        keep_all=keep_all,
        resume=resume,
        device=device,
        **options,
    )
    if json:
        sys.stdout.write(record.to_json() + "\n")
    else:
        from .swept import print_sweep

        print_sweep(record, out)
