"""Where Neuronpedia shows an SAE's features."""

import re

from ..core.cache import release_entry
from ..core.settings import SaeSetting

_SITE = "https://www.neuronpedia.org"
_ID = re.compile(r"[\w.\-]+(/[\w.\-]+)+")


def address_of(sae: SaeSetting) -> str | None:
    """The address that a feature's index is added to; None where SAELens' list, which is asked
    without a network, gives the SAE no id there.
    """
    if sae.release is None:
        return None
    entry = release_entry(sae.release)
    listed = [] if entry is None else entry["saes"]
    listing = next((s.get("neuronpedia") for s in listed if s["id"] == sae.id), None)
    if not isinstance(listing, str) or _ID.fullmatch(listing) is None:
        return None
    return f"{_SITE}/{listing}/"
