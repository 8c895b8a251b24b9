"""``cleansteer export``: constant edits as files for other programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.choices import EXPORT_FORMATS, TOKENS
from .options import JsonOption, check_packages


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER|FEATURES",
            help="Directory of an adapter of component bias; or features: 1,2,3, an allowlist.json, "
            "or a text file of indices.",
        ),
    ],
    file_format: Annotated[
        str,
        typer.Option("--format", metavar="|".join(EXPORT_FORMATS), help="Format of the file."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write: .safetensors; .gguf; for lm-eval .csv, one feature of an SAE with "
            "release and id.",
        ),
    ],
    setting: Annotated[
        str | None,
        typer.Option(
            "--setting",
            metavar="SETTING",
            help="Names model and SAE of features; of an adapter the model, where it is not the one "
            "that the adapter names.",
        ),
    ] = None,
    coefficient: Annotated[
        float | None,
        typer.Option(
            "--coefficient",
            metavar="C",
            help="Push of each feature, in units of its activation; features only.",
        ),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            metavar="|".join(TOKENS),
            help="Tokens that features are added at [default: all]; an adapter has its own.",
        ),
    ] = None,
    edit_bos: Annotated[
        bool | None,
        typer.Option("--edit-bos/--no-edit-bos", help="Whether BOS at the start is among them."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that lie there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write what a bias adapter or plain features add, for other programs.

    One vector a hook, added at every token or at some; a JSON file beside it says layer, site, operation,
    scale and tokens. What a format cannot hold exactly is refused.
    """
    from rich.console import Console

    from ..core.networks import quiet_libraries
    from ..core.words import counted
    from ..study.catalogue import load_setting

    check_packages("aenum", "peft")
    with quiet_libraries():
        from ..adapters import exports

    record = exports.export(
        source,
        file_format,
        out,
        setting=None if setting is None else load_setting(setting),
        coefficient=coefficient,
        positions=positions,
        edit_bos=edit_bos,
        overwrite=overwrite,
    )
    if json:
        sys.stdout.write(record.to_json() + "\n")
        return
    console = Console(stderr=True, highlight=False, markup=False)
    for edit in record.edits:
        console.print(
            f"{edit.hook}: {counted(len(edit.features), 'feature')}, norm {edit.norm:.4g}, "
            f"stored as {edit.stored_as or 'nothing'}"
        )
    for note in record.notes:
        console.print(f"note: {note}")
    console.print(f"{out}, described in {out}.json")
