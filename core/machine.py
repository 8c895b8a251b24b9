"""The machine: library versions, processor, memory, accelerators, the hub's cache."""

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .records.record import Record

_TESTED = Path(__file__).parent.parent / "constraints.txt"
_LIBRARIES = (
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "datasets",
    "huggingface_hub",
    "lightgbm",
    "numpy",
    "pandas",
)
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CGROUP_USE = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


class LibraryVersion(Record):
    """A library, installed and tested."""

    installed: str | None
    tested: str | None
    """None where it is not known; of Python, the least supported one."""
    same: bool
    """True where the installed version is the tested one."""


class Processor(Record):
    """What this process may use."""

    cores: int
    memory: int
    """Bytes, of the container where there is one."""
    free_memory: int


class Device(Record):
    """What ``--device`` takes here."""

    device: str
    description: str
    memory: int
    """Bytes."""
    free_memory: int
    formats: list[str]
    """Number formats of settings in which it multiplies matrices."""


class HubState(Record):
    """The hub's address, and its cache on this machine."""

    endpoint: str
    cache: str
    """Folder."""
    cache_size: int
    """Bytes."""
    free_disk: int
    """Bytes."""
    token: bool
    """True where there is a token; which, is told nowhere."""
    offline: bool


def versions() -> dict[str, LibraryVersion]:
    """Installed and tested version of Python and the libraries."""
    needed = "3.11"
    known = {
        "python": LibraryVersion(
            installed=platform.python_version(),
            tested=f">={needed}",
            same=tuple(map(int, platform.python_version_tuple()[:2])) >= (3, 11),
        )
    }
    tested = _tested_versions()
    for library in _LIBRARIES:
        try:
            installed: str | None = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            installed = None
        wanted = tested.get(_plain(library))
        public = None if installed is None else installed.partition("+")[0]
        same = installed is not None and wanted in (None, public)
        known[library] = LibraryVersion(installed=installed, tested=wanted, same=same)
    return known


def _tested_versions() -> dict[str, str]:
    try:
        lines = _TESTED.read_text("utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("==") for line in lines)
    return {_plain(name): version.strip() for name, equal, version in pairs if equal}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def processor() -> Processor:
    """Cores and memory that this process may use."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit, used = (_first_number(paths) for paths in (_CGROUP_LIMITS, _CGROUP_USE))
    if limit is not None and limit < total:
        total = limit
        free = min(free, max(0, limit - (used or 0)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Processor(cores=cores or 1, memory=total, free_memory=free)


def _first_number(paths: tuple[str, ...]) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text("utf-8"))
        except (OSError, ValueError):
            continue
    return None


def devices() -> list[Device]:
    """What ``--device`` takes here."""
    import torch

    here = processor()
    cpu = platform.processor() or platform.machine()
    known = [_device("cpu", cpu, here.memory, here.free_memory)]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            known.append(_device(f"cuda:{number}", name, total, free))
    if torch.backends.mps.is_available():
        known.append(_device("mps", "Apple GPU, memory shared", here.memory, here.free_memory))
    return known


def _device(device: str, description: str, memory: int, free: int) -> Device:
    return Device(
        device=device,
        description=description,
        memory=memory,
        free_memory=free,
        formats=list(_formats(device)),
    )


def _formats(device: str) -> Iterator[str]:
    """The number formats of settings in which the device multiplies matrices."""
    import torch

    for name in ("float32", "bfloat16"):
        try:
            one = torch.ones(2, 2, device=device, dtype=getattr(torch, name))
            if bool((one @ one == 2).all()):
                yield name
        except (RuntimeError, TypeError):
            continue


def hub() -> HubState:
    """The hub and its cache, as they are now."""
    from huggingface_hub import constants, get_token

    from .hub import is_offline

    folder = Path(constants.HF_HOME)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return HubState(
        endpoint=constants.ENDPOINT,
        cache=str(folder),
        cache_size=_size(folder) if folder.is_dir() else 0,
        free_disk=shutil.disk_usage(there).free,
        token=get_token() is not None,
        offline=is_offline(),
    )


def _size(folder: Path) -> int:
    """Bytes of a folder's files; links (the cache's snapshots) count nothing."""
    total = 0
    for root, _, names in os.walk(folder, onerror=None):
        for name in names:
            path = os.path.join(root, name)  # noqa: PTH118 - thousands of files
            try:
                total += 0 if os.path.islink(path) else os.stat(path).st_size  # noqa: PTH114, PTH116
            except OSError:
                continue
    return total
