"""``cleansteer doctor``: what this machine can screen, and what is in the way."""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from ..core.settings import Setting

_ASKING_SECONDS = 3.0
_HEADROOM = 1.2
"""Memory that a setting must find, in units of its weights: roughly, for what is computed."""
_GIB = 2**30


def doctor(json: JsonOption = False) -> None:
    """Check versions, memory, devices, the hub's cache, and every bundled setting.

    The network is only used to ask whether models may be downloaded; not with HF_HUB_OFFLINE=1.
    """
    from json import dumps

    from rich.console import Console

    found = examine()
    if json:
        sys.stdout.write(dumps(found, indent=2) + "\n")
        return
    console = Console(stderr=True)
    for table in _tables(found):
        console.print(table)
        console.print()
    for line in _advice(found):
        console.print(line, highlight=False, markup=False)


def examine() -> dict[str, Any]:
    """All that doctor tells, as ``--json`` writes it."""
    from ..core import machine
    from ..core.cache import is_local
    from ..core.hub import is_offline
    from ..study.catalogue import bundled, load_setting

    settings = {name: load_setting(name) for name in bundled()}
    devices = machine.devices()
    models = {s.model.name for s in settings.values() if not is_local(s)}
    access = {} if is_offline() else _ask(models)
    return {
        "versions": machine.versions(),
        "processor": machine.processor(),
        "devices": devices,
        "hub": machine.hub(),
        "settings": {
            name: _examine_setting(setting, devices, access) for name, setting in settings.items()
        },
    }


def _ask(models: set[str]) -> dict[str, tuple[str, bool | None]]:
    """Whether the hub would give each model, all asked at once."""
    from ..core.hub import ask_access

    names = sorted(models)
    with ThreadPoolExecutor(len(names) or 1) as pool:
        answers = pool.map(lambda name: ask_access(name, _ASKING_SECONDS), names)
        return dict(zip(names, answers, strict=True))


def _examine_setting(
    setting: "Setting",
    devices: list[dict[str, Any]],
    access: Mapping[str, tuple[str, bool | None]],
) -> dict[str, Any]:
    from ..core.cache import is_local, present
    from ..study.memory import memory_need

    local = ("local", False) if is_local(setting) else ("not asked", None)
    answer, gated = access.get(setting.model.name, local)
    need = memory_need(setting)
    return {
        "model": setting.model.name,
        "here": present(setting),
        "access": answer,
        "gated": gated,
        "memory_need": need,
        "fits": {
            device["device"]: None if need is None else _HEADROOM * need <= device["memory"]
            for device in devices
            if setting.model.dtype in device["formats"]
        },
    }


def _tables(found: Mapping[str, Any]) -> "Iterator[Table]":
    from rich.table import Table

    table = Table("library", "installed", "tested", box=None, pad_edge=False)
    for name, version in found["versions"].items():
        installed = version["installed"] or "missing"
        shown = installed if version["same"] else f"[yellow]{installed}[/yellow]"
        table.add_row(name, shown, version["tested"] or "-")
    yield table

    table = Table("device", "", "memory", "free", "formats", box=None, pad_edge=False)
    for device in found["devices"]:
        described = device["description"]
        if device["device"] == "cpu":
            described = f"{described}, {found['processor']['cores']} cores"
        sizes = (_size(device["memory"]), _size(device["free_memory"]))
        table.add_row(device["device"], described, *sizes, ", ".join(device["formats"]))
    yield table

    hub = found["hub"]
    table = Table("hub", "", box=None, pad_edge=False, show_header=False)
    table.add_row("hub", hub["endpoint"] + (" (offline)" if hub["offline"] else ""))
    table.add_row("token", "yes" if hub["token"] else "none")
    table.add_row("cache", f"{hub['cache']} ({_size(hub['cache_size'])})")
    table.add_row("free disk", _size(hub["free_disk"]))
    yield table

    from ..core.cache import summary

    table = Table("setting", "here", "model on hub", "needs", "fits", box=None, pad_edge=False)
    for name, setting in found["settings"].items():
        gated = ", gated" if setting["gated"] else ""
        need = setting["memory_need"]
        fits = ", ".join(device for device, enough in setting["fits"].items() if enough)
        table.add_row(
            name,
            summary(setting["here"]),
            f"{setting['access']}{gated}",
            "?" if need is None else _size(need),
            "?" if need is None else fits or "[yellow]nowhere[/yellow]",
        )
    yield table


def _advice(found: Mapping[str, Any]) -> Iterator[str]:
    from ..core.hub import licence_remedy

    other = [name for name, version in found["versions"].items() if not version["same"]]
    if other:
        yield (
            f"Other versions than the tested ones: {', '.join(other)}; if something fails, "
            "`pip install -c constraints.txt -e .`"
        )
    closed = {s["model"] for s in found["settings"].values() if s["access"] == "no"}
    for model in sorted(closed):
        yield f"{model} is gated and not open to you: {licence_remedy(model)}"
    if any(s["access"] == "could not ask" for s in found["settings"].values()):
        yield f"The hub at {found['hub']['endpoint']} could not be asked; what is here still works."


def _size(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"
