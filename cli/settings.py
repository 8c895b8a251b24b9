"""``cleansteer settings``: what can be screened."""

import sys
from typing import Annotated

import typer

from .options import JsonOption


def settings(
    fields: Annotated[
        bool, typer.Option("--fields", help="Explain every key of a setting's file instead.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the bundled settings, or explain the keys of a setting's file."""
    from json import dumps

    from rich.console import Console
    from rich.table import Table

    from ..benchmarks.catalogue import bundled, find_setting
    from ..core.settings import field_texts

    console = Console(stderr=True)
    if fields:
        explained = field_texts()
        if json:
            sys.stdout.write(dumps(explained, indent=2) + "\n")
            return
        table = Table("key", "default", "meaning", box=None)
        for key, text in explained.items():
            table.add_row(key, text["default"], text["meaning"])
        console.print(table)
        return
    found = {name: find_setting(name) for name in bundled()}
    if json:
        sys.stdout.write(
            dumps({name: s.model_dump(mode="json") for name, s in found.items()}, indent=2) + "\n"
        )
        return
    table = Table(box=None)
    table.add_column("setting", no_wrap=True)
    for heading in ("model", "steered SAE", "downstream SAE"):
        table.add_column(heading, overflow="fold")
    table.add_column("here", no_wrap=True)
    for name, setting in found.items():
        local = setting.sae.path is not None and setting.locate(setting.sae.path).is_dir()
        table.add_row(
            name,
            setting.model.name.rpartition("weights/")[2],
            setting.sae.label.rpartition("weights/")[2],
            setting.downstream_sae.label.rpartition("weights/")[2],
            "yes" if local else "?",
        )
    console.print(table)
