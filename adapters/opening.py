"""SAEs that are opened once for several uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ..core.saes import open_sae
from ..core.settings import SaeSetting

_OPENED: ContextVar[dict[str, tuple[Any, str]] | None] = ContextVar("opened_saes", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """Open every SAE at most once for all that is done inside; afterwards none is kept."""
    token = _OPENED.set({})
    try:
        yield
    finally:
        _OPENED.reset(token)


def open_shared(source: SaeSetting, folder: Path) -> tuple[Any, str]:
    """A SAELens object and its fingerprint (see :func:`core.saes.open_sae`), not to be changed.

    Raises:
        InputError: as there.

    """
    opened = _OPENED.get()
    if opened is None:
        return open_sae(source, folder)
    where = source.label if source.path is None else str((folder / source.path).resolve())
    if where not in opened:
        opened[where] = open_sae(source, folder)
    return opened[where]
