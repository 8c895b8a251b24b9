"""What an allowlist says of the model and SAE that it was made for."""

from collections.abc import Mapping
from typing import Any

from ..core.settings import Setting


def allowlist_source(setting: Setting, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The entries ``setting``, ``model``, ``hook`` and ``sae`` of an allowlist of a run.

    Args:
        setting: the run's.
        manifest: the run's, once its model and SAEs have been loaded.

    """
    sae = setting.sae.model_dump(include={"release", "id", "path"}, exclude_none=True)
    fingerprints = manifest["fingerprints"]
    return {
        "setting": setting.name,
        "model": {"name": setting.model.name, "fingerprint": fingerprints["model"]},
        "hook": manifest["hooks"]["sae"],
        "sae": sae | {"fingerprint": fingerprints["sae"]},
    }
