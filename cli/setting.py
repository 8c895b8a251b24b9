"""``cleansteer setting new``: a setting's file for a dictionary of SAELens' list."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption


def new(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="Release of SAELens' list.")],
    sae_id: Annotated[str, typer.Argument(metavar="ID", help="Dictionary of the release.")],
    downstream: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The SAE in which collateral is read, or RELEASE:ID of another release "
            "[default: of the same kind, a seventh of the layers further up].",
        ),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Steer only the first N features, a level of a Matryoshka dictionary.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file [default: its name].")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a setting that screens a dictionary of SAELens' list: model, hook, downstream SAE, texts.

    Nothing is downloaded; sizes are those that are known without asking the hub.
    """
    from json import dumps

    from rich.console import Console

    from ..core.errors import InputError
    from ..core.machine import processor
    from ..core.tables import write_text
    from ..study.memory import HEADROOM
    from ..study.proposal import propose

    made = propose(release, sae_id, downstream, first)
    path = Path(f"{made.name}.toml") if out is None else out
    if path.suffix != ".toml":
        raise InputError(f"--out {path} ends in {path.suffix!r}; expected .toml; rename it")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give another --out, or --overwrite")
    write_text(path, made.text)
    here = processor().memory
    if json:
        told = {"file": str(path), "memory": made.memory, "machine": here, "notes": [*made.notes]}
        sys.stdout.write(dumps(told, indent=2) + "\n")
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{path}: screen it by `cleansteer screen {path}`", markup=False)
    for note in made.notes:
        console.print(note, markup=False)
    if made.memory is None:
        console.print("how much memory it needs is not known")
        return
    need, whole = made.memory / 1e9, here / 1e9
    fits = "" if HEADROOM * need <= whole else ": too much; use a larger machine, or a GPU"
    console.print(f"weights of model and SAEs: {need:.1f} GB; memory here: {whole:.1f} GB{fits}")
