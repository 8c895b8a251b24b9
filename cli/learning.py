"""Options of the commands that train an adapter, or foresee what that would do."""

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="FILE",
        help="JSON lines: text, or prompt and completion, or messages (sft); prompt, chosen, "
        "rejected (dpo). All but text may be lists of messages.",
    ),
]
AllowlistOption = Annotated[
    Path | None,
    typer.Option("--allowlist", metavar="FILE", help="Only these features are edited."),
]
FeaturesOption = Annotated[
    str | None,
    typer.Option("--features", metavar="FILE|1,2,3", help="Only these, in place of an allowlist."),
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="HOOK=SAE[:ALLOWLIST]",
        help="Edit this hook point through this SAE, in place of the setting's SAE; repeatable. SAE: a "
        "directory, or RELEASE/ID of SAELens' list; ALLOWLIST: an allowlist's .json file, indices such "
        "as 1,2,3, or a text file of them; without it all features.",
    ),
]
DescriptionsByHookOption = Annotated[
    list[str] | None,
    typer.Option(
        "--descriptions",
        metavar="[HOOK=]FILE|DIR|neuronpedia",
        help="Descriptions of the features: .csv with the columns index and description, .jsonl with "
        "these keys, a directory of Neuronpedia's batch-*.jsonl.gz, its API (a key, which is not needed, "
        "in NEURONPEDIA_API_KEY), or a run, whose tokens are the names. Of several SAEs HOOK=FILE, "
        "repeatable.",
    ),
]
SelectOption = Annotated[
    str,
    typer.Option(
        "--select",
        metavar="N|all|auto",
        help="Of the allowed features only the N that are worth most on the data (one that never "
        "fires is worth nothing); auto: where four times fewer hold 95 % of it, these.",
    ),
]
ByOption = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="gradient|fisher",
        help="What a feature is worth: the gradient of its scaling on the data, or that against what "
        "it moves on --reference.",
    ),
]
EvalDataOption = Annotated[
    Path | None,
    typer.Option("--eval-data", metavar="FILE", help="Examples to score, as --data."),
]
EvalShareOption = Annotated[
    float,
    typer.Option(
        "--eval-share",
        help="Share of --data held out where --eval-data is not given, by prompts.",
    ),
]
Beta2Option = Annotated[
    str,
    typer.Option(
        "--beta2",
        metavar="auto|B",
        help="AdamW's beta2; auto: by how often the features fire.",
    ),
]


def selected(given: str) -> int | str:
    """A number of features, or the word."""
    return int(given) if given.lstrip("-").isdigit() else given


def numbers_of(given: list[str]) -> dict[str, float]:
    """What ``--option KEY=NUMBER`` says.

    Raises:
        InputError: one has no number.

    """
    from ..core.checks import read_number
    from ..core.errors import InputError

    numbers = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--option {pair!r} is no KEY=NUMBER; correct it, such as hidden=32")
        numbers[key] = read_number(f"--option {key}", value)
    return numbers
