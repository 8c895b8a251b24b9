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
    """List the bundled settings and what of them is here, or explain the keys of a setting's file.

    The network is not used: what is missing is downloaded when it is first screened.
    """
    from json import dumps

    from rich.console import Console
    from rich.table import Table

    from ..core.cache import present, summary
    from ..core.settings import field_texts
    from ..study.catalogue import bundled, load_setting

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
    found = {name: load_setting(name) for name in bundled()}
    if json:
        listed = {
            name: setting.model_dump(mode="json") | {"here": present(setting)}
            for name, setting in found.items()
        }
        sys.stdout.write(dumps(listed, indent=2) + "\n")
        return
    table = Table(box=None)
    table.add_column("setting", no_wrap=True)
    for heading in ("model", "steered SAE", "downstream SAE"):
        table.add_column(heading, overflow="fold")
    table.add_column("here", no_wrap=True)
    for name, setting in found.items():
        table.add_row(
            name,
            setting.model.name.rpartition("weights/")[2],
            setting.sae.label.rpartition("weights/")[2],
            setting.downstream_sae.label.rpartition("weights/")[2],
            summary(present(setting)),
        )
    console.print(table)
