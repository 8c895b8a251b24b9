"""SAEs that are opened once for several uses, or are in memory already."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ..core.fitness import check_reconstructing
from ..core.saes import open_sae
from ..core.settings import SaeSetting

_PROVIDED: ContextVar[dict[str, Any]] = ContextVar("provided_saes", default={})  # noqa: B039 - not changed
_OPENED: ContextVar[dict[str, tuple[Any, str]] | None] = ContextVar("opened_saes", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """Open every SAE at most once for all that is done inside; afterwards none is kept."""
    token = _OPENED.set({})
    try:
        yield
    finally:
        _OPENED.reset(token)


@contextmanager
def provided(saes: Mapping[str, Any]) -> Iterator[None]:
    """Let SAELens objects stand for the SAEs of hook points inside, whatever names them."""
    token = _PROVIDED.set(dict(saes))
    try:
        yield
    finally:
        _PROVIDED.reset(token)


def open_at(hook: str, source: SaeSetting, folder: Path) -> tuple[Any, str]:
    """The same as :func:`open_shared`, unless an SAE is provided for the hook point.

    Raises:
        InputError: as there.

    """
    given = _PROVIDED.get().get(hook)
    if given is None:
        return open_shared(source, folder)
    return given, check_reconstructing(given, "the SAE in memory")


def open_shared(source: SaeSetting, folder: Path) -> tuple[Any, str]:
    """A SAELens object and its fingerprint (see :func:`core.saes.open_sae`), not to be changed.

    Raises:
        InputError: as there.

    """
    opened = _OPENED.get()
    if opened is None:
        return open_sae(source, folder)
    where = source.label
    if source.path is not None:
        where = f"{(folder / source.path).resolve()} {source.first}"
    if where not in opened:
        opened[where] = open_sae(source, folder)
    return opened[where]
