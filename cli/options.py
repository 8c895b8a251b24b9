"""Options that several commands share, each documented once."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.checks import check_device as check_device
from ..core.checks import check_packages as check_packages
from ..core.checks import check_parents as check_parents
from ..core.checks import listed_features as listed_features

if TYPE_CHECKING:
    from ..core.settings import Setting
    from ..study.study import Pipeline

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
StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="uniform|frequency-spread|uncertain",
        help="Which features to label: drawn at random; at even ranks by frequency; or half of them "
        "so, and the rest where a predictor fitted on that half is least sure.",
    ),
]
ReliabilityOption = Annotated[
    float | None,
    typer.Option(
        "--reliability",
        metavar="R",
        help="Add contexts per label until the labels' split-half reliability reaches this, between "
        "0 and 1.",
    ),
]
MostContextsOption = Annotated[
    int | None,
    typer.Option(
        "--most-contexts",
        metavar="M",
        help="Most contexts of each type that --reliability may take [default: 4 times the "
        "setting's contexts_per_type].",
    ),
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
ColumnsOption = Annotated[
    Path | None,
    typer.Option(
        "--columns",
        metavar="FILE",
        help='TOML file that maps a table\'s columns to ours: [columns], theirs = "ours".',
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit with 3 where the ranking is not trusted.")
]
NOT_TRUSTED = 3
"""Exit code of --strict."""
TopOption = Annotated[
    int, typer.Option("--top", metavar="K", help="How many features the allowlist takes.")
]


SPENDING = {"n_features", "sample", "reliability", "most_contexts_per_type"}
"""Keys of [steering] that ``screen`` has options for."""


def open_pipeline(
    name: str,
    run: Path | None,
    spending: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    device: str = "cpu",
) -> "Pipeline":
    """The pipeline of a setting in its run directory.

    ``spending`` are the keys of [steering] that say how labels are spent, None where an option was
    not given. A command that has no options for that gives no ``spending``: an earlier run's is
    kept.

    Raises:
        InputError: setting, run directory or device are wrong.

    """
    from ..core.progress import Reporter
    from ..core.runs import RunDirectory
    from ..study.catalogue import find_setting

    setting = find_setting(name)
    path = run or Path("runs") / setting.name
    if spending is not None:
        given = {key: value for key, value in spending.items() if value is not None}
        setting = setting.replace("steering", **given) if given else setting
    elif not overwrite:
        setting = _spent_as_in(path, setting)
    directory = RunDirectory.open(path, setting, overwrite)
    check_device(device)
    from ..study.study import Pipeline

    return Pipeline(setting, directory, Reporter(), device)


def _spent_as_in(path: Path, setting: "Setting") -> "Setting":
    """The setting, with labels spent as in the run that lies there, if one does."""
    from ..core.runs import MANIFEST, RunDirectory

    if not (path / MANIFEST).is_file():
        return setting
    kept = RunDirectory.existing(path).setting().steering.model_dump(include=SPENDING)
    return setting.replace("steering", **kept)
