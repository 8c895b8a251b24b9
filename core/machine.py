"""The machine: library versions, processor, memory, accelerators, the hub's cache."""

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def versions() -> dict[str, dict[str, Any]]:
    """Installed and tested version of Python and the libraries; ``same`` compares them.

    ``tested`` is None where it is not known (Python: the least supported one is named).
    """
    needed = "3.11"
    found: dict[str, dict[str, Any]] = {
        "python": {
            "installed": platform.python_version(),
            "tested": f">={needed}",
            "same": tuple(map(int, platform.python_version_tuple()[:2])) >= (3, 11),
        }
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
        found[library] = {"installed": installed, "tested": wanted, "same": same}
    return found


def _tested_versions() -> dict[str, str]:
    try:
        lines = _TESTED.read_text("utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("==") for line in lines)
    return {_plain(name): version.strip() for name, equal, version in pairs if equal}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def processor() -> dict[str, int]:
    """Cores this process may use; memory in bytes, of the container where there is one."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit, used = (_first_number(paths) for paths in (_CGROUP_LIMITS, _CGROUP_USE))
    if limit is not None and limit < total:
        total = limit
        free = min(free, max(0, limit - (used or 0)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores or 1, "memory": total, "free_memory": free}


def _first_number(paths: tuple[str, ...]) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text("utf-8"))
        except (OSError, ValueError):
            continue
    return None


def devices() -> list[dict[str, Any]]:
    """What ``--device`` takes here: name, description, memory in bytes, number formats."""
    import torch

    here = processor()
    found = [
        {
            "device": "cpu",
            "description": platform.processor() or platform.machine(),
            "memory": here["memory"],
            "free_memory": here["free_memory"],
        }
    ]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            found.append(
                {
                    "device": f"cuda:{number}",
                    "description": torch.cuda.get_device_name(number),
                    "memory": total,
                    "free_memory": free,
                }
            )
    if torch.backends.mps.is_available():
        found.append(found[0] | {"device": "mps", "description": "Apple GPU, memory shared"})
    return [device | {"formats": list(_formats(str(device["device"])))} for device in found]


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


def hub() -> dict[str, Any]:
    """Hub address, cache folder with its size and the disk's free space in bytes, token, offline."""
    from huggingface_hub import constants, get_token

    from .hub import is_offline

    folder = Path(constants.HF_HOME)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return {
        "endpoint": constants.ENDPOINT,
        "cache": str(folder),
        "cache_size": _size(folder) if folder.is_dir() else 0,
        "free_disk": shutil.disk_usage(there).free,
        "token": get_token() is not None,
        "offline": is_offline(),
    }


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
