"""``cleansteer schema``: the formats of the files."""

import sys
from typing import Annotated

import typer


def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="setting, manifest, screening, allowlist, training, validation, export, audit, "
            "movement, pulled, tuned or sweep [default: all of them].",
        ),
    ] = None,
) -> None:
    """Print the JSON schemas of settings and of the JSON files that cleansteer writes."""
    from json import dumps

    from ..core.errors import InputError
    from ..core.records import schemas

    known = schemas()
    if name is not None and name not in known:
        raise InputError(f"schema {name!r} is not known; expected one of {', '.join(known)}")
    sys.stdout.write(dumps(known if name is None else known[name], indent=2) + "\n")
