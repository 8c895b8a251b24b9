"""``cleansteer train``: an adapter on allowed features, over TRL."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    DeviceOption,
    JsonOption,
    SettingArgument,
    check_device,
    check_packages,
    check_parents,
    listed_features,
)

if TYPE_CHECKING:
    from ..adapters.allowlist import Allowlist
    from ..core.settings import Setting
    from ..core.training import TrainingOptions

_AUTO = "auto"
_LORA_RANK = 8
_BASELINE_LEARNING_RATE = 0.01
_LOGGERS = ("tensorboard", "wandb")


def train(
    setting: SettingArgument,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="FILE",
            help="JSON lines: text, or prompt and completion "
            "(sft); prompt, chosen, rejected (dpo).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Empty or new directory.")],
    objective: Annotated[
        str, typer.Option("--objective", metavar="sft|dpo", help="What is trained for.")
    ] = "sft",
    component: Annotated[
        str | None,
        typer.Option(
            "--component",
            metavar="scale|bias|lerp|switch|mlp|lowrank|sparse",
            help="What is done to the allowed latents [default: scale].",
        ),
    ] = None,
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
        int | None,
        typer.Option(
            "--select",
            metavar="N",
            help="Of the allowed features only the N whose scaling has the largest gradient on the "
            "data; one that never fires has none.",
        ),
    ] = None,
    eval_data: Annotated[
        Path | None,
        typer.Option("--eval-data", metavar="FILE", help="Examples to score, as --data."),
    ] = None,
    eval_share: Annotated[
        float,
        typer.Option(
            "--eval-share", help="Share of --data held out where --eval-data is not given."
        ),
    ] = 0.1,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", help="Of AdamW, at the start [default: 0.03; 0.01 with --baseline]."
        ),
    ] = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the data.")] = 3.0,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", help="Optimiser steps, in place of --epochs.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples a forward pass.")] = 8,
    accumulation: Annotated[
        int, typer.Option("--accumulation", help="Forward passes an optimiser step.")
    ] = 1,
    bos: Annotated[
        bool,
        typer.Option(
            "--bos/--no-bos",
            help="BOS in front of every example, as in screening; or where the tokenizer puts it alone.",
        ),
    ] = True,
    max_length: Annotated[
        int, typer.Option("--max-length", help="Most tokens of an example.")
    ] = 1024,
    beta2: Annotated[
        str,
        typer.Option(
            "--beta2", metavar="auto|B", help="Of AdamW; auto: by how often features fire."
        ),
    ] = _AUTO,
    dpo_beta: Annotated[
        float | None,
        typer.Option("--dpo-beta", help="How strongly DPO holds to the reference [default: 0.1]."),
    ] = None,
    l1: Annotated[
        float, typer.Option("--l1", help="Weight of the edit's L1 norm in the loss.")
    ] = 0.0,
    drift: Annotated[
        float,
        typer.Option("--drift", help="Weight of the change of the other latents on --reference."),
    ] = 0.0,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="FILE", help="JSON lines with text, for --drift."),
    ] = None,
    evaluations: Annotated[
        int, typer.Option("--evaluations", help="How often held-out examples are scored.")
    ] = 10,
    patience: Annotated[
        int | None,
        typer.Option("--patience", help="Stop after so many evaluations without improvement."),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute layers twice to save memory.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn.")] = 0,
    report_to: Annotated[
        str, typer.Option("--report-to", metavar="none|tensorboard|wandb", help="TRL's logs.")
    ] = "none",
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="lora|ia3", help="Train PEFT's own, for comparison."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="Of --baseline lora [default: 8].")
    ] = None,
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
    check_packages("aenum", "peft", "trl", *(() if report_to not in _LOGGERS else (report_to,)))
    from ..adapters.components.component import check_options
    from ..adapters.examples import read_examples
    from ..adapters.finetuning import FineTuning
    from ..core.errors import InputError
    from ..core.progress import Reporter
    from ..study.catalogue import find_setting

    chosen = find_setting(setting)
    _check_out(out, resume)
    check_device(device)
    if baseline is not None:
        _check_baseline(
            baseline,
            rank,
            component=component,
            option=option,
            allowlist=allowlist,
            features=features,
            select=select,
            l1=l1,
            drift=drift,
        )
    elif rank is not None:
        raise InputError(f"--rank {rank} is for --baseline lora; use --option rank={rank}")
    if learning_rate is None and baseline is not None:
        learning_rate = _BASELINE_LEARNING_RATE
    component = component or "scale"
    component_options = check_options(component, _numbers(option or []))
    if allowlist is not None and features is not None:
        raise InputError("--allowlist and --features exclude each other; leave one out")
    if drift >= 0 and (drift > 0) != (reference is not None):
        raise InputError("--drift and --reference belong together; give both or neither")
    options = _options(
        objective=objective,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        accumulation=accumulation,
        bos=bos,
        max_length=max_length,
        l1=l1,
        drift=drift,
        evaluations=evaluations,
        patience=patience,
        seed=seed,
        report_to=report_to,
        gradient_checkpointing=gradient_checkpointing,
        **({} if learning_rate is None else {"learning_rate": learning_rate}),
        **({} if dpo_beta is None else {"dpo_beta": dpo_beta}),
        **({} if beta2 == _AUTO else {"beta2": _number("--beta2", beta2)}),
    )
    if dpo_beta is not None and options.objective != "dpo":
        raise InputError(f"--dpo-beta {dpo_beta:g} is for --objective dpo; leave it out")
    examples = read_examples(data, options.objective)
    if eval_data is not None:
        evaluated = read_examples(eval_data, options.objective)
        if set(evaluated.rows[0]) != set(examples.rows[0]):
            raise InputError(
                f"{eval_data} has other columns than {data}; expected {', '.join(examples.rows[0])}; "
                "rename them"
            )
        both = evaluated.shared_with(examples)
        if both:
            raise InputError(
                f"{both} of {len(evaluated.rows)} examples of {eval_data} are in {data} too; expected "
                "others, which tell what was learned; remove them"
            )
    elif 0 < eval_share < 1:
        examples, evaluated = examples.held_out(eval_share, seed)
    else:
        raise InputError(f"--eval-share {eval_share} is out of range; expected between 0 and 1")
    texts = None if reference is None else read_examples(reference, "sft")
    allowed = _allowed(chosen, allowlist, features)
    job = FineTuning(
        setting=chosen,
        options=options,
        examples=examples,
        evaluated=evaluated,
        out=out,
        bar=Reporter().bar,
        data_name=data.name,
        device=device,
        resume=resume,
    )
    if baseline is not None:
        record = job.baseline(baseline, rank or _LORA_RANK)
    else:
        record = job.adapter(component, component_options, allowed, select, beta2 == _AUTO, texts)
    if json:
        from json import dumps

        sys.stdout.write(dumps(record, indent=2, allow_nan=False) + "\n")
    else:
        from .trained import print_training

        print_training(record, out)


def _check_out(out: Path, resume: bool) -> None:
    from ..adapters.finetuning import RECORD
    from ..core.errors import InputError

    check_parents(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a directory; change it")
    if resume and not (out / RECORD).is_file():
        raise InputError(f"--out {out} holds no training to go on with; leave --resume out")
    if not resume and out.exists() and any(out.iterdir()):
        raise InputError(
            f"--out {out} is not empty; give another, or go on with what is there by --resume"
        )


def _check_baseline(name: str, rank: int | None, **given: object) -> None:
    from ..core.errors import InputError

    if name not in ("lora", "ia3"):
        raise InputError(f"--baseline {name!r} is not known; expected lora or ia3; choose one")
    if rank is not None and (name != "lora" or rank < 1):
        raise InputError(
            f"--rank {rank}: expected a number from 1, with --baseline lora; change it"
        )
    for option, value in given.items():
        if value:
            raise InputError(
                f"--{option} does not apply to --baseline {name}, which has no features; leave it out"
            )


def _number(name: str, text: str) -> float:
    from ..core.errors import InputError

    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise InputError(f"{name} {text!r} is no number; expected one; change it") from None


def _numbers(given: list[str]) -> dict[str, float]:
    from ..core.errors import InputError

    found = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--option {pair!r} is no KEY=NUMBER; correct it, such as hidden=32")
        found[key] = _number(f"--option {key}", value)
    return found


def _options(**values: Any) -> "TrainingOptions":
    from pydantic import ValidationError

    from ..core.errors import InputError
    from ..core.training import TrainingOptions

    try:
        return TrainingOptions(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise InputError(f"--{name} {first['input']}: {first['msg']}; change it") from None


def _allowed(
    setting: "Setting", allowlist: Path | None, features: str | None
) -> "Allowlist | list[int] | None":
    from ..adapters.allowlist import read_allowlist
    from ..adapters.config import check_features

    if allowlist is not None:
        return read_allowlist(allowlist, setting)
    if features is None:
        return None
    return check_features(listed_features(features, "--features"), "--features")
