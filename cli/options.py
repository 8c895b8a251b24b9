"""Options that several commands share, each documented once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..benchmarks.pipeline import Pipeline

SettingArgument = Annotated[
    str, typer.Argument(metavar="SETTING", help="A bundled setting or the path of a TOML file.")
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="Run directory [default: runs/SETTING]."),
]
LabelsOption = Annotated[
    int | None,
    typer.Option("--labels", metavar="N", help="Label this many features by steering them."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Delete the run directory's earlier run first.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write the result as JSON to stdout, and nothing else there.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit with 3 where the ranking is not trusted.")
]
TopOption = Annotated[
    int, typer.Option("--top", metavar="K", help="How many features the allowlist takes.")
]


def open_pipeline(
    name: str,
    run: Path | None,
    labels: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
) -> "Pipeline":
    """The pipeline of a setting in its run directory.

    Raises:
        InputError: setting, run directory or device are wrong.

    """
    from ..benchmarks.catalogue import find_setting
    from ..core.progress import Reporter
    from ..core.runs import RunDirectory

    setting = find_setting(name)
    if labels is not None:
        setting = setting.replace("steering", n_features=labels)
    directory = RunDirectory.open(run or Path("runs") / setting.name, setting, overwrite)
    _check_device(device)
    from ..benchmarks.pipeline import Pipeline

    return Pipeline(setting, directory, Reporter(), device)


def _check_device(device: str) -> None:
    import torch

    from ..core.errors import InputError

    kind, _, number = device.partition(":")
    there = {
        "cpu": not number,
        "cuda": torch.cuda.is_available()
        and (not number or (number.isdigit() and int(number) < torch.cuda.device_count())),
        "mps": torch.backends.mps.is_available() and not number,
    }
    if not there.get(kind, False):
        usable = [name for name, usable in there.items() if usable] or ["cpu"]
        raise InputError(
            f"device {device!r} is not available here, expected one of {', '.join(usable)}; change "
            "--device"
        )
