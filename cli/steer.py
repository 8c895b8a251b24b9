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
        float | None, typer.Option("--alpha", help="Steering strength [default: the setting's].")
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
    are added to labels.parquet; --contexts chooses those that are shown.
    """
    from ..core.errors import InputError

    if sum([features is not None, sample is not None, everything]) > 1:
        raise InputError("--features, --sample and --all exclude each other; give one of them")
    if contexts not in CONTEXTS:
        raise InputError(f"--contexts {contexts!r} is not one of {', '.join(CONTEXTS)}; correct it")
    wanted = None if features is None else _feature_ids(features)
    pipeline = open_pipeline(setting, run, None, overwrite, device)
    changes = {k: v for k, v in {"mode": mode, "alpha": alpha}.items() if v is not None}
    steering = pipeline.setting.replace("steering", **changes).steering
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
    table = pipeline.labels(wanted, steering)
    pipeline.run.record_command()
    if wanted is not None:
        table = table[table["feature"].isin(wanted)]
    if contexts != "all":
        table = table[table["context_type"] == contexts]
    _show(table, pipeline.run.path / "labels.parquet", json)


def _feature_ids(text: str) -> list[int]:
    from ..core.errors import InputError

    path = Path(text)
    if path.suffix or path.exists():
        if not path.is_file():
            raise InputError(f"--features file {text} does not exist; give a file or a list of ids")
        text = path.read_text("utf-8")
    parts = text.replace(",", " ").split()
    wrong = next((part for part in parts if not part.isdigit()), None)
    if wrong is not None or not parts:
        raise InputError(
            f"--features: {wrong!r} is not a feature id; expected whole numbers separated by commas "
            "or white space"
        )
    return sorted({int(part) for part in parts})


def _show(table: "pd.DataFrame", path: Path, json: bool) -> None:
    from rich.console import Console

    if json:
        sys.stdout.write(table.to_json(orient="records", indent=2) + "\n")
        return
    console = Console(stderr=True)
    console.print(table.describe().T.to_string(), highlight=False, markup=False, soft_wrap=True)
    console.print(f"{len(table)} rows; all of them in {path}", highlight=False, markup=False)
