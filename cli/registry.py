"""``cleansteer registry``: what SAELens lists, and what of it can be screened."""

import sys
from typing import Annotated

import typer

from .options import JsonOption


def registry(
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="Only releases or models whose name holds it."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List SAELens' releases, and say of each what can be screened: fast, slowly, or not, and why.

    The list is that of the installed sae_lens; the network is not used.
    """
    from json import dumps

    from rich.console import Console
    from rich.table import Table

    from ..core.errors import InputError
    from ..study.registry import releases

    found = [
        release
        for release in releases()
        if text is None or text.lower() in f"{release.name} {release.model}".lower()
    ]
    if not found:
        raise InputError(
            f"no release of SAELens' list holds {text!r} in its name or model; expected a part of one; "
            "`cleansteer registry` lists all"
        )
    if json:
        listed = {
            release.name: {
                "model": release.model,
                "model_type": release.model_type,
                "dictionaries": {
                    name: {"support": each.support, "reason": each.reason}
                    for name, each in release.judgements.items()
                },
            }
            for release in found
        }
        sys.stdout.write(dumps(listed, indent=2) + "\n")
        return
    console = Console(stderr=True)
    table = Table(box=None)
    table.add_column("release", overflow="fold")
    table.add_column("model", overflow="fold")
    for heading in ("fast", "slow", "no"):
        table.add_column(heading, justify="right")
    table.add_column("why", overflow="fold")
    for release in found:
        counts = (str(release.count(kind) or "") for kind in ("fast", "slow", "no"))
        table.add_row(release.name, release.model, *counts, "; ".join(release.reasons))
    console.print(table)
    total = sum(len(release.judgements) for release in found)
    fast, slow = (sum(release.count(kind) for release in found) for kind in ("fast", "slow"))
    console.print(
        f"{len(found)} releases, {total:,} dictionaries: {fast + slow:,} supported "
        f"({(fast + slow) / total:.1%}), {fast:,} of them fast ({fast / max(1, fast + slow):.1%}), "
        f"{slow:,} by full forward passes, exact but slow",
        highlight=False,
        soft_wrap=True,
    )
