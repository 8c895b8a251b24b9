"""``cleansteer train``: an adapter on allowed features, over TRL."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.choices import BASELINES, COMPONENTS
from .learning import (
    AllowlistOption,
    Beta2Option,
    ByOption,
    DataOption,
    DescriptionsByHookOption,
    EvalDataOption,
    EvalShareOption,
    FeaturesOption,
    SelectOption,
    TargetsOption,
    numbers_of,
    selected,
)
from .models import NONE_GIVEN, Given, options_of
from .options import (
    DeviceOption,
    JsonOption,
    SettingArgument,
    check_packages,
)

if TYPE_CHECKING:
    from ..core.training import TrainingOptions


def _training_options() -> "type[TrainingOptions]":
    from ..core.training import TrainingOptions

    return TrainingOptions


@options_of(
    _training_options,
    leave_out=("beta2",),
    notes={"learning_rate": "0.01 with --baseline, 0.003 with --component sparse"},
)
def train(
    setting: SettingArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Empty or new directory.")],
    component: Annotated[
        str,
        typer.Option(
            "--component",
            metavar="|".join(COMPONENTS),
            help="What is done to the allowed latents.",
        ),
    ] = "scale",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=NUMBER", help="An option of the component; repeatable."
        ),
    ] = None,
    allowlist: AllowlistOption = None,
    features: FeaturesOption = None,
    target: TargetsOption = None,
    select: SelectOption = "auto",
    by: ByOption = "gradient",
    eval_data: EvalDataOption = None,
    eval_share: EvalShareOption = 0.1,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="FILE",
            help="JSON lines with text, on which drift and KL are measured; --drift needs it.",
        ),
    ] = None,
    beta2: Beta2Option = "auto",
    options: Given = NONE_GIVEN,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="|".join(BASELINES), help="Train PEFT's own, for comparison."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="Rank of --baseline lora [default: 8].")
    ] = None,
    descriptions: DescriptionsByHookOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training in --out.")
    ] = False,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Train an adapter that edits only allowed features of the setting's SAE.

    With --target the setting names the model alone, and what is edited are the SAEs that are given, one
    or several, at their hook points: features of the residual stream, of attention (attn.hook_z,
    hook_attn_out) or of MLPs.

    With TRL's SFTTrainer or DPOTrainer; held-out examples are scored before, while and after, and
    the best adapter of the evaluations after the start is kept, with a model card. The directory
    can be opened with PEFT: PeftModel.from_pretrained(model, DIR), after `import cleansteer`.
    """
    check_packages("aenum", "peft", "trl")
    from ..adapters import train
    from ..naming.several import read_source
    from ..study.catalogue import load_setting
    from ..study.entry import RUNS

    chosen = load_setting(setting)
    record = train(
        chosen,
        data,
        out=out,
        allowlist=allowlist,
        features=features,
        targets=target,
        component=component,
        component_options=numbers_of(option or []),
        select=selected(select),
        by=by,
        eval_data=eval_data,
        eval_share=eval_share,
        reference=reference,
        beta2=beta2,
        baseline=baseline,
        rank=rank,
        descriptions=read_source(descriptions),
        run=RUNS / chosen.name,
        resume=resume,
        device=device,
        **options,
    )
    if json:
        sys.stdout.write(record.to_json() + "\n")
    else:
        from .trained import print_training

        print_training(record, out)
