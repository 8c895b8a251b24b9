"""SAEs as SAELens' list of releases describes them, however they are named.

The list knows what files do not say: the factor that activations were scaled by in training, and
corrections of configurations. SAELens applies both to an SAE that is named by its release, and
neither to one that is named by its repository or directory.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .tables import read_json

_UNFOLDED = "expected_average_only_in"
_WHITENED = "covariance_whitening"
UNFOLDED = (_UNFOLDED, _WHITENED)
"""Values of ``normalize_activations`` that SAELens leaves to what is folded into the weights: an SAE
that still says so reads other activations than the model's."""
_CACHED = "models--"


def load_listed(release: str, sae_id: str, device: str) -> Any:
    """An SAE of a release; one of a repository whose folder a release lists is loaded as that.

    Some releases have their weights in .pt files alone; of these torch reads tensors and nothing else.
    """
    from sae_lens import SAE

    listed = _listed(release, sae_id) or (release, sae_id)
    with _tensors_alone():
        return SAE.from_pretrained(*listed, device=device)


@contextlib.contextmanager
def _tensors_alone() -> Iterator[None]:
    """Let ``torch.load`` take nothing but tensors, whatever the environment says."""
    import torch

    load: Any = torch.load

    def restricted(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **options | {"weights_only": True})

    torch.load = restricted
    try:
        yield
    finally:
        torch.load = load


def load_folder(folder: Path, device: str) -> Any:
    """An SAE of a directory in SAELens' format.

    Where the directory lies in the hub's cache and a release lists it, it is loaded as by release.
    Factors of its training are folded in where SAELens' training left them beside it
    (``activation_scaler.json``).
    """
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader
    from sae_lens.loading.pretrained_saes_directory import (
        get_config_overrides,
        get_norm_scaling_factor,
    )

    listed = _listed_at(folder)
    corrections = {} if listed is None else get_config_overrides(*listed)

    def read(path: str | Path, device: str, cfg_overrides: dict[str, Any] | None) -> Any:
        return sae_lens_disk_loader(path, device, corrections | (cfg_overrides or {}))

    sae: Any = SAE.load_from_disk(str(folder), device=device, dtype="float32", converter=read)
    factor = None if listed is None else get_norm_scaling_factor(*listed)
    if factor is not None and sae.cfg.normalize_activations == _UNFOLDED:
        sae.fold_activation_norm_scaling_factor(factor)
    _fold_own(sae, folder)
    return sae


def _fold_own(sae: Any, folder: Path) -> None:
    from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
    from sae_lens.training.activation_scaler import ActivationScaler

    path = folder / ACTIVATION_SCALER_CFG_FILENAME
    if sae.cfg.normalize_activations not in UNFOLDED or not path.is_file():
        return
    read_json(path)  # refused in one line where it is broken
    scaler = ActivationScaler()
    scaler.load(path)
    if sae.cfg.normalize_activations == _UNFOLDED and scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    elif sae.cfg.normalize_activations == _WHITENED and scaler.whitening is not None:
        whitening = scaler.whitening
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)


def _listed(repository: str, folder: str) -> tuple[str, str] | None:
    """Release and id of a repository's folder; None where no release lists it."""
    from sae_lens.loading.pretrained_saes_directory import (
        get_pretrained_saes_directory,
        get_releases_for_repo_id,
    )

    folder = folder.strip("/")
    for release in get_releases_for_repo_id(repository):
        for sae_id, path in get_pretrained_saes_directory()[release].saes_map.items():
            if path.strip("/") == folder:
                return release, sae_id
    return None


def _listed_at(folder: Path) -> tuple[str, str] | None:
    """The same of a directory in the hub's cache: ``models--OWNER--NAME/snapshots/COMMIT/FOLDER``."""
    for parts in {folder.absolute().parts, folder.resolve().parts}:
        for place, part in enumerate(parts):
            inner = parts[place + 1 :]
            if part.startswith(_CACHED) and len(inner) > 2 and inner[0] == "snapshots":
                repository = part.removeprefix(_CACHED).replace("--", "/")
                return _listed(repository, "/".join(inner[2:]))
    return None
