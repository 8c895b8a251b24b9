"""The Hugging Face hub: what is cached is read without the network, and refusals are explained."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

T = TypeVar("T")
_KNOCK_SECONDS = 10.0
Access = Literal["yes", "no", "not found", "could not ask"]


def licence_remedy(repository: str) -> str:
    """What opens a gated repository."""
    return (
        f"accept its licence at https://huggingface.co/{repository}, then run `hf auth login`, and "
        f"`hf download {repository} config.json` to see that it worked"
    )


def is_offline() -> bool:
    """Whether the user forbade the network (``HF_HUB_OFFLINE=1``)."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """Let the hub's libraries see their cache alone, as under ``HF_HUB_OFFLINE=1``.

    Without it they ask the hub about every file, cached or not.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    datasets_config = getattr(sys.modules.get("datasets"), "config", None)
    datasets_before = getattr(datasets_config, "HF_HUB_OFFLINE", None)
    constants.HF_HUB_OFFLINE = True
    if datasets_config is not None:
        datasets_config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        if datasets_config is not None:
            datasets_config.HF_HUB_OFFLINE = datasets_before


def cache_first(load: Callable[[], T], network: bool = True) -> T:
    """Load from the cache; only where that fails, with the ``network``, if the user allows it.

    So a model that is cached stays as it is, whatever changes on the hub.
    """
    if network and not is_offline():
        with contextlib.suppress(OSError, ValueError), no_network():
            return load()
        _knock()
        with _downloads_shown():
            return load()
    with no_network():
        return load()


@contextlib.contextmanager
def _downloads_shown() -> Iterator[None]:
    """Let downloads, which may take an hour, show their progress, unless the user forbade it."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hidden = are_progress_bars_disabled() and not constants.HF_HUB_DISABLE_PROGRESS_BARS
    if hidden:
        enable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            disable_progress_bars()


def _knock() -> None:
    """Fail at once where nobody answers: the hub's libraries would try each file for minutes."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_KNOCK_SECONDS)
    except Exception as error:
        if any(_unreachable(found) for found in _causes(error)):
            raise ConnectionError(f"{constants.ENDPOINT} cannot be reached: {error}") from error


def refusal(error: BaseException, kind: str, name: str) -> str | None:
    """Why the hub did not give something, in one line; None where the error tells of other things.

    ``name`` is what the setting names; a gated repository is named by the hub's own answer.
    """
    from huggingface_hub import constants, errors

    chain = list(_causes(error))
    for found in chain:
        if isinstance(found, errors.GatedRepoError):
            repository = _repository(found) or name
            return f"{kind} {name!r} is gated and not open to you; {licence_remedy(repository)}"
    if any(isinstance(found, errors.RepositoryNotFoundError) for found in chain):
        return (
            f"{kind} {name!r} is not on the hub at {constants.ENDPOINT}, or private; correct the name, "
            "or run `hf auth login`"
        )
    if is_offline():
        missing = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)
        if any(isinstance(found, missing) for found in chain):
            return (
                f"{kind} {name!r} is not on this machine (cache {constants.HF_HOME}), and "
                "HF_HUB_OFFLINE is set; unset it to download it"
            )
        return None
    if any(_unreachable(found) for found in chain):
        return (
            f"{kind} {name!r} is not on this machine (cache {constants.HF_HOME}), and the hub "
            f"at {constants.ENDPOINT} cannot be reached; connect to the network once to download it"
        )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _unreachable(error: BaseException) -> bool:
    """Whether it is a failed connection, of whichever HTTP library."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(
        {"TransportError", "ConnectionError", "Timeout", "TimeoutException"}
    )


def _repository(error: BaseException) -> str | None:
    path = getattr(getattr(getattr(error, "response", None), "url", None), "path", "")
    name, found, _ = str(path).strip("/").partition("/resolve/")
    return name if found else None


def ask_access(repository: str, seconds: float) -> tuple[Access, bool | None]:
    """Ask the hub whether a model's files are open to this user, and whether it is gated."""
    from huggingface_hub import HfApi, errors, get_hf_file_metadata, get_token, hf_hub_url

    try:
        gated = bool(HfApi().model_info(repository, timeout=seconds).gated)
        url = hf_hub_url(repository, "config.json")
        get_hf_file_metadata(url, token=get_token(), timeout=seconds)
    except errors.GatedRepoError:
        return "no", True
    except errors.RepositoryNotFoundError:
        return "not found", None
    except Exception:
        return "could not ask", None
    return "yes", gated
