"""Neuronpedia: where it shows an SAE's features, and what it says of them."""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.cache import release_entry
from ..core.errors import InputError
from ..core.settings import SaeSetting
from ..core.tables import read_json, write_json
from .files import in_a_line

if TYPE_CHECKING:
    import httpx

SITE = "https://www.neuronpedia.org"
KEY = "NEURONPEDIA_API_KEY"
"""Environment variable of the key that raises the site's limits; it works without."""
OTHER_SITE = "NEURONPEDIA_URL"
"""Environment variable of another address, for Neuronpedias that people run themselves."""
_LISTING = re.compile(r"[\w.\-]+(/[\w.\-]+)+")
_TIMEOUT = 10.0
_MOST_BYTES = 8 << 20
_TRIES = 3
_LONGEST_WAIT = 60.0
"""Seconds that are waited in all where the site asks for it."""


def listing_of(sae: SaeSetting) -> str | None:
    """Where Neuronpedia has an SAE, ``model/source``, by SAELens' list, which is asked without a network;
    None where that names nothing.
    """
    if sae.release is None:
        return None
    entry = release_entry(sae.release)
    listed = [] if entry is None else entry["saes"]
    listing = next((s.get("neuronpedia") for s in listed if s["id"] == sae.id), None)
    if not isinstance(listing, str) or _LISTING.fullmatch(listing) is None:
        return None
    return listing


def address_of(sae: SaeSetting) -> str | None:
    """The address that a feature's index is added to; None where the SAE is not listed."""
    listing = listing_of(sae)
    return None if listing is None else f"{SITE}/{listing}/"


class RefusedError(Exception):
    """Neuronpedia does not answer, or not so that it is of use; the reason in words."""


def cache_root() -> Path:
    """Where its answers are kept: ``cleansteer/neuronpedia`` beside the hub's own cache (HF_HOME)."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "cleansteer" / "neuronpedia"


@dataclass
class Neuronpedia:
    """The public API, for one SAE: ``GET SITE/api/feature/MODEL/SOURCE/INDEX``.

    Answers are kept on this machine. The key goes into the header ``x-api-key`` and nowhere else.

    Args:
        listing: where it has the SAE, ``model/source``.

    Raises:
        InputError: NEURONPEDIA_URL is no address.

    """

    listing: str
    sleep: Callable[[float], object] = time.sleep
    _waited: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.site = os.environ.get(OTHER_SITE, SITE).rstrip("/")
        if not re.fullmatch(r"https?://[\w.\-:\[\]]+(/[\w./\-]*)?", self.site):
            raise InputError(
                f"{OTHER_SITE} is {self.site!r}; expected an address such as {SITE}; correct it, or "
                "unset it"
            )

    @property
    def file(self) -> Path:
        """Where the answers of this SAE are kept."""
        host = re.sub(r"[^\w.\-]+", "_", self.site.partition("//")[2])
        return cache_root() / host / f"{self.listing.replace('/', '@')}.json"

    def known(self) -> dict[int, str]:
        """What is kept."""
        if not self.file.is_file():
            return {}
        try:
            kept = read_json(self.file)
            return {int(k): in_a_line(str(v)) for k, v in kept.items()}
        except (InputError, ValueError):
            return {}

    def describe(
        self, features: Sequence[int], tick: Callable[[int], object] = lambda _: None
    ) -> tuple[dict[int, str], str | None]:
        """Descriptions of features, and why there are no more; None where the site answered for all.

        Args:
            features: indices; those that are kept are not asked for again.
            tick: called with 1 after each.

        """
        import httpx

        kept = self.known()
        found, reason = dict(kept), None
        # Redirects are not followed: they would carry the key elsewhere.
        with httpx.Client(headers=_headers(), timeout=_TIMEOUT, follow_redirects=False) as client:
            for feature in features:
                if feature not in found:
                    try:
                        text = self._ask(client, feature)
                    except RefusedError as refused:
                        reason = str(refused)
                        break
                    if text:
                        found[feature] = text
                tick(1)
        if found != kept:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, {str(key): found[key] for key in sorted(found)})
        return {feature: found[feature] for feature in features if feature in found}, reason

    def _ask(self, client: "httpx.Client", feature: int) -> str:
        """The first description of a feature; empty where there is none."""
        import httpx

        address = f"{self.site}/api/feature/{self.listing}/{feature}"
        for attempt in range(_TRIES):
            try:
                with client.stream("GET", address) as answer:
                    if answer.status_code == 200:
                        return _description(_read(answer))
                    pause = self._pause(answer, attempt)
            except httpx.TimeoutException:
                raise RefusedError(f"it did not answer within {_TIMEOUT:g} s") from None
            except httpx.HTTPError as error:
                raise RefusedError(f"it cannot be reached ({type(error).__name__})") from None
            if pause is None:
                return ""
            if attempt + 1 < _TRIES:
                self._waited += pause
                self.sleep(pause)
        raise RefusedError(f"it answered with status {answer.status_code}, {_TRIES} times")

    def _pause(self, answer: "httpx.Response", attempt: int) -> float | None:
        """Seconds to wait before it is asked again; None: it does not know the feature."""
        status = answer.status_code
        if status == 404:
            return None
        if status in (401, 403):
            raise RefusedError(f"it refuses access (status {status}); {KEY} is its key")
        if status != 429 and status < 500:
            raise RefusedError(f"it answered with status {status}")
        asked = answer.headers.get("retry-after", "")
        pause = float(asked) if asked.isdigit() else 2.0**attempt
        if self._waited + pause > _LONGEST_WAIT:
            raise RefusedError(f"it asks to wait for {pause:g} s (status {status})")
        return pause


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY, "").strip()
    return {"x-api-key": key} if key.isascii() and key.isprintable() and key else {}


def _read(answer: "httpx.Response") -> Any:
    from json import loads

    body, begun = bytearray(), time.monotonic()
    for part in answer.iter_bytes():
        body += part
        if time.monotonic() - begun > _TIMEOUT:
            raise RefusedError(f"it did not end its answer within {_TIMEOUT:g} s")
        if len(body) > _MOST_BYTES:
            raise RefusedError(f"its answer is longer than {_MOST_BYTES >> 20} MB")
    try:
        return loads(body)
    except (ValueError, RecursionError):
        raise RefusedError("its answer is not JSON") from None


def _description(answer: Any) -> str:
    explanations = answer.get("explanations") if isinstance(answer, dict) else None
    for explanation in explanations if isinstance(explanations, list) else ():
        text = explanation.get("description") if isinstance(explanation, dict) else None
        if isinstance(text, str) and text.strip():
            return in_a_line(text)
    return ""
