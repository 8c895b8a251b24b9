"""Options that several commands share, each documented once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..core.checks import check_packages as check_packages
from ..core.checks import check_parents as check_parents
from ..core.checks import listed_features as listed_features
from ..core.choices import MODES

if TYPE_CHECKING:
    from ..core.choices import All
    from ..study.study import Study

DescriptionsOption = Annotated[
    str | None,
    typer.Option(
        "--descriptions",
        metavar="FILE|DIR|neuronpedia",
        help="Descriptions of the features: .csv with the columns index and description, .jsonl with "
        "these keys, a directory of Neuronpedia's batch-*.jsonl.gz, or its API (a key, which is not "
        "needed, in NEURONPEDIA_API_KEY).",
    ),
]
SettingArgument = Annotated[
    str, typer.Argument(metavar="SETTING", help="A bundled setting or the path of a TOML file.")
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="Run directory [default: runs/SETTING]."),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="N|all",
        help="Label this many features by steering them; 0: none, and rank by linear response alone; "
        "all: every one, so that the ranking is a measurement.",
    ),
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
ModeOption = Annotated[
    str | None,
    typer.Option(
        "--mode", metavar="|".join(MODES), help="How features are steered [default: the setting's]."
    ),
]
TargetOption = Annotated[
    float | None,
    typer.Option(
        "--target-kl",
        metavar="NATS",
        help="Mode matched: the KL from the clean predictions that every feature is brought to "
        "[default: 0.05].",
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


def labels_of(text: str | None) -> "int | All | None":
    """The number, or ``all``, that --labels says; whether a number will do, the setting says.

    Raises:
        InputError: it is another word.

    """
    from ..core.errors import InputError

    if text is None or text == "all":
        return cast("All | None", text)
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"--labels {text!r} is no number of features; expected 0 or more, or 'all'; correct it"
        ) from None


def strengths_of(text: str) -> list[float]:
    """The strengths that --alpha lists, each once and rising.

    Raises:
        InputError: one is no number, infinite or 0.

    """
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


def open_run(
    name: str,
    run: Path | None,
    device: str = "cpu",
    overwrite: bool = False,
) -> "Study":
    """The study of a setting in its run directory, with labels spent as they were there.

    Raises:
        InputError: setting, run directory or device are wrong.

    """
    from ..study.catalogue import load_setting
    from ..study.entry import RUNS, open_study

    setting = load_setting(name)
    return open_study(setting, run=run or RUNS / setting.name, device=device, overwrite=overwrite)
