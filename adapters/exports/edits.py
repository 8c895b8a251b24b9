"""Edits that add one vector at every token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...core.checks import check_features
from ...core.errors import InputError
from ...core.saes import hook_of, open_sae
from ...core.settings import SaeSetting
from ...core.tables import read_json
from ..config import SaeAdapterConfig, Target, resolve_paths
from ..model import Fit, SaeAdapterModel, fit_target, load_target
from ..places import Place
from ..positions import EVERY, Which
from ..registration import NAME
from .host import Host

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_COMPONENT = "bias"
_PER_TOKEN = ("constant_norm_rescale", "layer_norm")


@dataclass(frozen=True)
class Edit:
    """x + v at every token, or at some, v = sum over features f of s_f d_f.

    d_f is what a unit of f's activation decodes to: W_dec[f], or W_dec[f] / |W_dec[f]| for TopK SAEs
    that rescale latents by their decoder norm. The vector is exactly what an adapter of component
    ``bias`` adds (:class:`~cleansteer.adapters.components.bias.Bias`), in float32.
    """

    hook: str
    """TransformerLens' name of the hook point."""
    place: Place
    """The same in the Hugging Face model."""
    features: tuple[int, ...]
    """Rising."""
    scale: Float[Tensor, " feature"]
    """s, in units of activation."""
    row_scale: tuple[float, ...]
    """d_f in units of W_dec[f]."""
    vector: Float[Tensor, " d"]
    """v, in units of the activations at the hook."""
    target: Target
    """What it is made of: the SAE, and its fingerprint."""
    which: Which = EVERY
    """The tokens that it is added at."""

    @property
    def layer_number(self) -> int:
        """The layer of the Hugging Face model that the place belongs to, from 0."""
        return int(self.place.layer.rpartition(".")[2])

    @property
    def output_of(self) -> int | None:
        """The layer whose output the vector is added to, -1 for the embeddings; None inside one."""
        return {"entry": self.layer_number - 1, "exit": self.layer_number}.get(self.place.name)


def adapter_model_name(folder: Path) -> str | None:
    """The base model that a saved adapter names.

    Raises:
        InputError: the directory holds no adapter of component ``bias``.

    """
    name = _read_config(folder)[1].get("base_model_name_or_path")
    return str(name) if name else None


def adapter_edits(folder: Path, host: Host) -> list[Edit]:
    """What a saved adapter of component ``bias`` adds, by targets.

    Args:
        folder: as PEFT saves adapters.
        host: the adapter's base model.

    Raises:
        InputError: configuration or weights are missing or broken, the component is another, or a
            target does not fit the model or its SAE.

    """
    config, _ = _read_config(folder)
    path = folder / _WEIGHTS
    if not path.is_file():
        raise InputError(
            f"adapter directory {folder} has no {_WEIGHTS}; expected what PEFT's save_pretrained "
            "writes; save the adapter again"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"adapter weights {path} are broken ({error}); copy them again") from None
    made = []
    for target in config.targets:
        fit = load_target(Target.parse(target), host.network)
        module = f"{fit.place.layer}.{SaeAdapterModel.prefix}{fit.place.name}"
        key = f"base_model.model.{module}.{_COMPONENT}"
        scale = weights.pop(key, None)
        if scale is None or scale.shape != (fit.part.n_features,):
            problem = "is missing" if scale is None else f"has shape {tuple(scale.shape)}"
            raise InputError(
                f"adapter weights {path}: {key} {problem}; expected {fit.part.n_features} numbers, one "
                "for each feature of the target; save the adapter again"
            )
        made.append(replace(_edit(fit, scale.float()), which=config.which))
    if weights:
        raise InputError(
            f"adapter weights {path} hold {min(weights)}, which no target of {_CONFIG} explains; "
            "expected biases alone; export an adapter that trains nothing else"
        )
    return made


def feature_edits(
    features: Sequence[int],
    coefficient: float,
    which: SaeSetting,
    folder: Path,
    host: Host,
    fingerprint: str | None = None,
) -> list[Edit]:
    """Every feature pushed by the same coefficient.

    Args:
        features: indices.
        coefficient: s_f of each, in units of activation.
        which: the SAE.
        folder: that a relative directory of the SAE starts from.
        host: the model.
        fingerprint: of the SAE that the features were chosen in, where it is known.

    Raises:
        InputError: features, coefficient or SAE are wrong, or do not fit the model.

    """
    if not 0 < abs(torch.tensor(coefficient, dtype=torch.float32)) < torch.inf:
        raise InputError(
            f"coefficient {coefficient:g} steers nothing that can be written; expected a number other "
            "than 0; change --coefficient"
        )
    chosen = check_features(features, "features")
    sae, actual = open_sae(which, folder)
    target = Target.of(which, folder, hook_of(sae, which), chosen, fingerprint)
    fit = fit_target(target, host.network, sae, actual)
    return [_edit(fit, torch.full((len(chosen),), float(coefficient)))]


def _edit(fit: Fit, scale: Float[Tensor, " feature"]) -> Edit:
    hook, part = fit.target.hook, fit.part
    if part.normalisation in _PER_TOKEN:
        raise InputError(
            f"the SAE at {hook} normalises activations by {part.normalisation!r}, so that its edit is "
            "another vector at every token; expected an SAE that does not; keep it as an adapter"
        )
    vector = scale @ part.decoder.float()
    if not bool(vector.isfinite().all()):
        raise InputError(
            f"the edit at {hook} holds NaN or infinity; expected finite numbers; train the adapter "
            "again, or choose a smaller coefficient"
        )
    features = fit.target.features
    indices = tuple(range(part.n_features) if features is None else features)
    return Edit(hook, fit.place, indices, scale, tuple(part.row_scale), vector, fit.target)


def _read_config(folder: Path) -> tuple[SaeAdapterConfig, dict[str, Any]]:
    path = folder / _CONFIG
    if not path.is_file():
        raise InputError(
            f"adapter directory {folder} has no {_CONFIG}; expected what PEFT's save_pretrained "
            "writes; correct the path"
        )
    data = resolve_paths(read_json(path), folder.resolve())
    if data.get("peft_type") != NAME.upper():
        raise InputError(
            f"{path}: peft_type is {data.get('peft_type')!r}; expected {NAME.upper()!r}, an adapter on "
            "SAE latents; give one"
        )
    if data.get("component") != _COMPONENT:
        raise InputError(
            f"{path}: component is {data.get('component')!r}, whose edit depends on the activations; "
            f"expected {_COMPONENT!r}, which adds a constant; keep it as an adapter"
        )
    targets: Any = data.get("targets")
    if not isinstance(targets, list):
        raise InputError(f"{path}: targets is {targets!r}; expected a list; save the adapter again")
    tokens: Any = {key: data[key] for key in ("positions", "edit_bos") if key in data}
    return SaeAdapterConfig(targets=targets, component=_COMPONENT, **tokens), data
