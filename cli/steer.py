"""``cleansteer features`` and ``cleansteer evaluate``: the measurements by themselves."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DeviceOption,
    JsonOption,
    OverwriteOption,
    RunOption,
    SettingArgument,
    listed_features,
    open_pipeline,
)

if TYPE_CHECKING:
    import pandas as pd

MODES = ("add", "clamp_global", "clamp_q95")
CONTEXTS = ("mixed", "top", "random", "low", "all")


def features(
    setting: SettingArgument,
    run: RunOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Compute the statistics of every feature of the dictionary."""
    pipeline = open_pipeline(setting, run, None, overwrite, device)
    table = pipeline.features()
    pipeline.run.record_command()
    _show(table, pipeline.run.path / "features.parquet", json)


def evaluate(
    setting: SettingArgument,
    features: Annotated[
        str | None,
        typer.Option("--features", metavar="FILE|1,2,3", help="Feature ids, or a file of them."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", help="The first N of the setting's sample."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every feature of the dictionary.")
    ] = False,
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="|".join(MODES), help="[default: the setting's]")
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha",
            metavar="A|A,B,...",
            help="Steering strength, or several of them [default: the setting's].",
        ),
    ] = None,
    kl_budget: Annotated[
        float | None,
        typer.Option(
            "--kl-budget",
            metavar="NATS",
            help="With several strengths: recommend the largest coefficient of each feature whose "
            "KL from the clean predictions stays within this [default: 0.1].",
        ),
    ] = None,
    contexts: Annotated[
        str, typer.Option("--contexts", metavar="|".join(CONTEXTS), help="Which rows to show.")
    ] = "mixed",
    run: RunOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Steer features and measure stability and collateral spread.

    Without --features, --sample or --all: the setting's own sample. The labels of all context types
    are added to labels.parquet; --contexts chooses those that are shown. Several strengths
    (--alpha 0.5,1,2,4) give a row each, and doses.parquet with a recommended coefficient for every
    feature.
    """
    from ..core.errors import InputError
    from ..steering_eval.doses import DEFAULT_BUDGET

    if sum([features is not None, sample is not None, everything]) > 1:
        raise InputError("--features, --sample and --all exclude each other; give one of them")
    if contexts not in CONTEXTS:
        raise InputError(f"--contexts {contexts!r} is not one of {', '.join(CONTEXTS)}; correct it")
    wanted = None if features is None else sorted(set(listed_features(features, "--features")))
    pipeline = open_pipeline(setting, run, None, overwrite, device)
    meant = pipeline.setting.steering.mode if mode is None else mode
    changes: dict[str, object] = {"mode": meant}
    if meant != "add":
        changes["alpha"] = 1.0
    alphas = [] if alpha is None else _strengths(alpha)
    if alphas and meant != "add":
        raise InputError(
            f"--alpha {alpha}: mode {meant} clamps to a value and takes no strength; leave --alpha "
            "out, or use --mode add"
        )
    steering = pipeline.setting.replace("steering", **changes).steering
    for strength in alphas:
        steering = pipeline.setting.replace("steering", alpha=strength, mode=meant).steering
    if kl_budget is not None and (len(alphas) < 2 or not kl_budget > 0):
        raise InputError(
            f"--kl-budget {kl_budget:g} needs several strengths and to be above 0; give --alpha "
            "0.5,1,2,4 for example"
        )
    if len(alphas) > 1 and not steering.vocabulary_labels:
        raise InputError(
            "several strengths need the KL to recommend one, and the setting has vocabulary_labels "
            "= false; set it to true"
        )
    if everything:
        wanted = pipeline.features()["feature"].tolist()
    elif sample is not None:
        available = pipeline.sampled().tolist()
        if not 1 <= sample <= len(available):
            raise InputError(
                f"--sample {sample} does not lie between 1 and the {len(available)} features of the "
                "setting's sample; correct it"
            )
        wanted = available[:sample]
    if len(alphas) > 1:
        table = pipeline.doses(wanted, steering, alphas, kl_budget or DEFAULT_BUDGET)
    else:
        table = pipeline.labels(wanted, steering)
    pipeline.run.record_command()
    if wanted is not None:
        table = table[table["feature"].isin(wanted)]
    if contexts != "all":
        table = table[table["context_type"] == contexts]
    if len(alphas) > 1 and not json:
        _show_doses(table, pipeline.run.path)
    else:
        _show(table, pipeline.run.path / "labels.parquet", json)


def _strengths(text: str) -> list[float]:
    from math import isfinite

    from ..core.errors import InputError

    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            found.append(float("nan"))
        if not isfinite(found[-1]) or found[-1] == 0:
            raise InputError(
                f"--alpha: {part.strip()!r} is not a strength; expected numbers other than 0, "
                "separated by commas, such as 0.5,1,2,4"
            )
    return sorted(set(found))


def _show_doses(table: "pd.DataFrame", folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    columns = {
        "effect_l2": "effect",
        "kl_clean_steered": "KL",
        "stability_abs": "stability",
        "collateral_count_0.05": "collateral",
    }
    shown = Table("alpha", "features", *columns.values(), "recommended", box=None)
    for alpha, rows in table.groupby("alpha"):
        recommended = rows.drop_duplicates("feature")
        shown.add_row(
            f"{alpha:g}",
            str(recommended["feature"].nunique()),
            *(f"{rows[name].mean():.4g}" for name in columns),
            str(int((recommended["recommended_alpha"] == alpha).sum())),
        )
    console.print(shown)
    each = table.drop_duplicates("feature")
    none = int(each["recommended_alpha"].isna().sum())
    console.print(
        f"recommended: for how many features this is the largest strength whose KL stays within "
        f"{each['kl_budget'].iloc[0]:g} nats; none for {none}, and {int(each['all_doses_within'].sum())}"
        f" might take more than was measured. Each feature's: {folder / 'doses.parquet'}; all rows: "
        f"{folder / 'labels.parquet'}",
        highlight=False,
        markup=False,
    )


def _show(table: "pd.DataFrame", path: Path, json: bool) -> None:
    from rich.console import Console

    if json:
        sys.stdout.write(table.to_json(orient="records", indent=2) + "\n")
        return
    console = Console(stderr=True)
    console.print(table.describe().T.to_string(), highlight=False, markup=False, soft_wrap=True)
    console.print(f"{len(table)} rows; all of them in {path}", highlight=False, markup=False)
