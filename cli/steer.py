"""``cleansteer features`` and ``cleansteer evaluate``: the measurements by themselves."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..core.choices import CONTEXT_TYPES
from .options import (
    DeviceOption,
    JsonOption,
    ModeOption,
    OverwriteOption,
    RunOption,
    SettingArgument,
    TargetOption,
    listed_features,
    open_run,
    strengths_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..core.choices import ContextType, Mode


def features(
    setting: SettingArgument,
    run: RunOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Compute the statistics of every feature of the dictionary."""
    from ..core.layout import FEATURES

    study = open_run(setting, run, device, overwrite)
    table = study.measure_features()
    _show(table, study.path / FEATURES, json)


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
    mode: ModeOption = None,
    target_kl: TargetOption = None,
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
        str, typer.Option("--contexts", metavar="|".join(CONTEXT_TYPES), help="Which rows to show.")
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
    from ..core.layout import LABELS

    wanted = None if features is None else listed_features(features, "--features")
    strengths = None if alpha is None else strengths_of(alpha)
    study = open_run(setting, run, device, overwrite)
    table = study.evaluate(
        wanted,
        sample=sample,
        everything=everything,
        mode=cast("Mode | None", mode),
        alpha=strengths,
        kl_budget=kl_budget,
        target_kl=target_kl,
        contexts=cast("ContextType", contexts),
    )
    if strengths is not None and len(strengths) > 1 and not json:
        _show_doses(table, study.path)
    else:
        _show(table, study.path / LABELS, json)


def _show_doses(table: "pd.DataFrame", folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    columns = {
        "effect_l2": "effect",
        "kl_clean_steered": "KL",
        "stability_abs": "stability",
        "collateral_count_0.05": "collateral count",
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
