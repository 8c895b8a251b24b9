"""Who called: the command line, or Python, as it is recorded in manifests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_CALL: ContextVar[tuple[str, ...] | None] = ContextVar("cleansteer_call", default=None)


@contextmanager
def called_as(*call: str) -> Iterator[None]:
    """Name the caller for all that is done inside; an outer name holds over an inner one.

    The outermost caller is the real one: a command that works through the Python face is recorded as
    that command.
    """
    if _CALL.get() is not None:
        yield
        return
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


def current_call() -> list[str]:
    """The caller's name; ``["python"]`` where nobody gave one."""
    return list(_CALL.get() or ("python",))


def spell_call(name: str, *arguments: object, **options: object) -> str:
    """A call as a person would type it; objects without a short text are named by their type."""
    parts = [_spell(argument) for argument in arguments]
    parts += [f"{key}={_spell(value)}" for key, value in options.items()]
    return f"cleansteer.{name}({', '.join(parts)})"


_LONGEST = 80


def _spell(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 8:
        return f"<{len(value)} items>"
    plain = isinstance(value, str | int | float | bool | list | tuple | None)
    text = repr(value) if plain or hasattr(value, "__fspath__") else ""
    return text if 0 < len(text) <= _LONGEST else f"<{type(value).__name__}>"
