"""``cleansteer doctor``: what this machine can screen, and what is in the way."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from ..study.doctor import Diagnosis

_GIB = 2**30


def doctor(json: JsonOption = False) -> None:
    """Check versions, memory, devices, the hub's cache, and every bundled setting.

    The network is only used to ask whether models may be downloaded; not with HF_HUB_OFFLINE=1.
    """
    from rich.console import Console

    from ..study.doctor import doctor as diagnose

    diagnosis = diagnose()
    if json:
        sys.stdout.write(diagnosis.to_json() + "\n")
        return
    console = Console(stderr=True)
    for table in _tables(diagnosis):
        console.print(table)
        console.print()
    for line in diagnosis.advice():
        console.print(line, highlight=False, markup=False)


def _tables(diagnosis: "Diagnosis") -> "Iterator[Table]":
    from rich.table import Table

    table = Table("library", "installed", "tested", box=None, pad_edge=False)
    for name, version in diagnosis.versions.items():
        installed = version.installed or "missing"
        shown = installed if version.same else f"[yellow]{installed}[/yellow]"
        table.add_row(name, shown, version.tested or "-")
    yield table

    table = Table("device", "", "memory", "free", "formats", box=None, pad_edge=False)
    for device in diagnosis.devices:
        described = device.description
        if device.device == "cpu":
            described = f"{described}, {diagnosis.processor.cores} cores"
        sizes = (_size(device.memory), _size(device.free_memory))
        table.add_row(device.device, described, *sizes, ", ".join(device.formats))
    yield table

    hub = diagnosis.hub
    table = Table("hub", "", box=None, pad_edge=False, show_header=False)
    table.add_row("hub", hub.endpoint + (" (offline)" if hub.offline else ""))
    table.add_row("token", "yes" if hub.token else "none")
    table.add_row("cache", f"{hub.cache} ({_size(hub.cache_size)})")
    table.add_row("free disk", _size(hub.free_disk))
    yield table

    from ..core.cache import summary

    table = Table("setting", "here", "model on hub", "needs", "fits", box=None, pad_edge=False)
    for name, setting in diagnosis.settings.items():
        gated = ", gated" if setting.gated else ""
        need = setting.memory_need
        fits = ", ".join(device for device, enough in setting.fits.items() if enough)
        table.add_row(
            name,
            summary(setting.here),
            f"{setting.access}{gated}",
            "?" if need is None else _size(need),
            "?" if need is None else fits or "[yellow]nowhere[/yellow]",
        )
    yield table


def _size(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"
