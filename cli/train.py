"""``cleansteer train``: an adapter on allowed features, over TRL."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.choices import BASELINES, COMPONENTS
from .models import NONE_GIVEN, Given, options_of
from .options import (
    DescriptionsOption,
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
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="FILE",
            help="JSON lines: text, or prompt and completion, or messages (sft); prompt, chosen, "
            "rejected (dpo). All but text may be lists of messages.",
        ),
    ],
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
    allowlist: Annotated[
        Path | None,
        typer.Option("--allowlist", metavar="FILE", help="Only these features are edited."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features", metavar="FILE|1,2,3", help="Only these, in place of an allowlist."
        ),
    ] = None,
    select: Annotated[
        str,
        typer.Option(
            "--select",
            metavar="N|all|auto",
            help="Of the allowed features only the N that are worth most on the data (one that never "
            "fires is worth nothing); auto: where four times fewer hold 95 % of it, these.",
        ),
    ] = "auto",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="gradient|fisher",
            help="What a feature is worth: the gradient of its scaling on the data, or that against what "
            "it moves on --reference.",
        ),
    ] = "gradient",
    eval_data: Annotated[
        Path | None,
        typer.Option("--eval-data", metavar="FILE", help="Examples to score, as --data."),
    ] = None,
    eval_share: Annotated[
        float,
        typer.Option(
            "--eval-share",
            help="Share of --data held out where --eval-data is not given, by prompts.",
        ),
    ] = 0.1,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="FILE",
            help="JSON lines with text, on which drift and KL are measured; --drift needs it.",
        ),
    ] = None,
    beta2: Annotated[
        str,
        typer.Option(
            "--beta2",
            metavar="auto|B",
            help="AdamW's beta2; auto: by how often the features fire.",
        ),
    ] = "auto",
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
    descriptions: DescriptionsOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training in --out.")
    ] = False,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Train an adapter that edits only allowed features of the setting's SAE.

    With TRL's SFTTrainer or DPOTrainer; held-out examples are scored before, while and after, and
    the best adapter of the evaluations after the start is kept, with a model card. The directory
    can be opened with PEFT: PeftModel.from_pretrained(model, DIR), after `import cleansteer`.
    """
    check_packages("aenum", "peft", "trl")
    from ..adapters import train
    from ..study.catalogue import load_setting
    from ..study.entry import run_of

    chosen = load_setting(setting)
    record = train(
        chosen,
        data,
        out=out,
        allowlist=allowlist,
        features=features,
        component=component,
        component_options=_numbers(option or []),
        select=int(select) if select.lstrip("-").isdigit() else select,
        by=by,
        eval_data=eval_data,
        eval_share=eval_share,
        reference=reference,
        beta2=beta2,
        baseline=baseline,
        rank=rank,
        descriptions=descriptions or run_of(chosen),
        resume=resume,
        device=device,
        **options,
    )
    if json:
        sys.stdout.write(record.to_json() + "\n")
    else:
        from .trained import print_training

        print_training(record, out)


def _numbers(given: list[str]) -> dict[str, float]:
    from ..core.checks import read_number
    from ..core.errors import InputError

    numbers = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--option {pair!r} is no KEY=NUMBER; correct it, such as hidden=32")
        numbers[key] = read_number(f"--option {key}", value)
    return numbers
