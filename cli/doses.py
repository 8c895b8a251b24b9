"""``cleansteer doses``: how strongly every feature can be steered, forecast from doses of a few."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DeviceOption,
    JsonOption,
    OverwriteOption,
    RunOption,
    SettingArgument,
    open_run,
    strengths_of,
)

if TYPE_CHECKING:
    import pandas as pd


def doses(
    setting: SettingArgument,
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha",
            metavar="A|A,B,...",
            help="Strengths to forecast [default: those at which doses are measured].",
        ),
    ] = None,
    kl_budget: Annotated[
        float,
        typer.Option(
            "--kl-budget",
            metavar="NATS",
            help="Recommend the largest coefficient of each feature whose KL from the clean "
            "predictions stays within this.",
        ),
    ] = 0.1,
    labels: Annotated[
        int,
        typer.Option("--labels", metavar="N", help="Measure the doses of this many features."),
    ] = 100,
    run: RunOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Forecast the dose that every feature of the dictionary takes, from measured doses of a few.

    The setting has to measure linear response, as it does unless it says response = false. Written is
    dose_forecast.parquet: how far each forecast holds, and a recommended coefficient, or the reason
    why there is none. --json writes the forecasts at all strengths.
    """
    from ..core.layout import DOSE_FORECAST

    strengths = None if alpha is None else strengths_of(alpha)
    study = open_run(setting, run, device, overwrite)
    table = study.dose_forecast(strengths, kl_budget=kl_budget, labels=labels)
    if json:
        sys.stdout.write(table.to_json(orient="records", indent=2) + "\n")
    else:
        _show(table, study.recommended_doses, str(study.path / DOSE_FORECAST))


def _show(table: "pd.DataFrame", recommended: "pd.DataFrame", path: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    columns = {
        "kl": "KL, median",
        "stability_abs": "stability",
        "collateral_count_0.05": "collateral count",
    }
    shown = Table("alpha", "forecasts that hold", *columns.values(), box=None)
    for alpha, rows in table.groupby("alpha"):
        values = (rows[name].median() for name in columns)
        holding = f"{int(rows['within_radius'].sum())} of {len(rows)}"
        shown.add_row(f"{alpha:g}", holding, *(f"{value:.4g}" for value in values))
    console.print(shown)
    given = recommended[recommended["reason"] == ""]
    middle = given["recommended_coefficient"].median()
    told = f", {middle:.3g} in the median" if len(given) else ""
    budget = recommended["kl_budget"].iloc[0]
    first = f"a coefficient within {budget:g} nats is recommended for {len(given)} of "
    lines = [f"{first}{len(recommended)} features{told}; each feature's: {path}"]
    without = recommended.loc[recommended["reason"] != "", "reason"].value_counts()
    lines += [f"none for {n}: {reason}" for reason, n in without.items()]
    for line in lines:
        console.print(line, highlight=False, markup=False)
