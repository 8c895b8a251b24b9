"""Sparse autoencoders, as SAELens loads them."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError
from .fitness import INDEPENDENT, TRANSCODERS, check_architecture, check_reconstructing, check_sae
from .hub import cache_first, refusal
from .models import LanguageModel
from .releases import load_folder, load_listed
from .settings import SaeSetting, Setting
from .sites import Site, Stage, input_hook, parse_site
from .subset import first_features, subset


@dataclass(frozen=True)
class Dictionary:
    """A loaded SAE or transcoder, and where it reads and writes the model."""

    sae: Any
    """The SAELens object; its ``encode`` and ``decode`` are the definition."""
    site: Site
    """Where its features write: where they are steered."""
    source: Site
    """Where they read; another site for transcoders alone."""
    centred: bool
    """Whether it reads the stream minus its mean over the model dimension."""
    fingerprint: str
    """Of its tensors (see :func:`core.networks.fingerprint_tensors`)."""

    @property
    def architecture(self) -> str:
        return str(self.sae.cfg.architecture())

    @property
    def n_features(self) -> int:
        return int(self.sae.cfg.d_sae)

    @property
    def independent(self) -> bool:
        """Whether a latent's activation does not depend on the other latents' (not so for TopK)."""
        return self.architecture in INDEPENDENT

    @property
    def reconstructs(self) -> bool:
        """Whether it writes where it reads, as SAEs do."""
        return self.architecture not in TRANSCODERS

    @property
    def n_skipped(self) -> int:
        """How many first positions its training left out, as far as its metadata says: SAELens'
        ``seqpos_slice``, or BOS by ``exclude_special_tokens``.
        """
        metadata = self.sae.cfg.metadata
        start = (metadata.seqpos_slice or (None,))[0]
        return max(int(start or 0), int(bool(metadata.exclude_special_tokens)))

    @property
    def decoder(self) -> Float[Tensor, "feature d"]:
        return cast(Tensor, self.sae.W_dec.detach())

    @property
    def encoder(self) -> Float[Tensor, "d feature"]:
        return cast(Tensor, self.sae.W_enc.detach())

    def read(self, values: Float[Tensor, "*any d"]) -> Float[Tensor, "*any d"]:
        """What the SAE reads of its site: raw, or minus its mean where centred."""
        values = values.to(self.sae.dtype)
        return values - values.mean(dim=-1, keepdim=True) if self.centred else values

    @torch.no_grad()
    def encode(self, values: Float[Tensor, "*any d"]) -> Float[Tensor, "*any feature"]:
        """Activations of all features, by SAELens' own encoder."""
        return cast(Tensor, self.sae.encode(self.read(values)))

    def columns(self, features: NDArray[np.int64]) -> "Dictionary":
        """The dictionary of some features only, for SAEs whose latents are independent.

        It encodes those features exactly as the whole does; its ``decode`` is not the whole's.

        Raises:
            ValueError: the latents depend on each other (TopK).

        """
        return replace(self, sae=subset(self.sae, features))


def load_dictionary(
    setting: Setting, which: SaeSetting, model: LanguageModel, device: str = "cpu"
) -> Dictionary:
    """Load an SAE (release and id, or local directory) and check that it belongs to the model.

    Raises:
        InputError: not found, broken, of an unsupported architecture, of another width than the
            model's, or trained at a hook that the model does not have.

    """
    return wrap_sae(_load(which, setting.folder, device), which, model)


def open_sae(which: SaeSetting, folder: Path, device: str = "cpu") -> tuple[Any, str]:
    """The SAELens object of an SAE and its fingerprint, without a model.

    Args:
        which: release and id, or a directory.
        folder: that a relative directory starts from.
        device: where its tensors are put.

    Raises:
        InputError: not found, broken, of an unsupported architecture, or a transcoder.

    """
    sae = _load(which, folder, device)
    return sae, check_reconstructing(sae, which.label)


def wrap_sae(sae: Any, which: SaeSetting, model: LanguageModel) -> Dictionary:
    """A SAELens object as a dictionary of a model's residual stream, checked (see
    :func:`load_dictionary`).
    """
    label = which.label
    fingerprint = check_sae(sae, label)
    if str(sae.cfg.architecture()) in TRANSCODERS:
        return _wrap_transcoder(sae, which, model, fingerprint)
    site = _site_of(hook_of(sae, which), label, model)
    _check_width(sae.cfg.d_in, site, label, model)
    if sae.cfg.reshape_activations == "hook_z" and site.stage != Stage.HEADS:
        raise InputError(
            f"SAE {label} reads attention heads (reshape_activations = 'hook_z'), but its hook is "
            f"{site.hook!r}; expected blocks.L.attn.hook_z; correct `hook`"
        )
    heads = site.stage == Stage.HEADS
    if heads:
        # Heads come joined from our reader; SAELens would join them once more.
        sae.turn_off_forward_pass_hook_z_reshaping()
    centred = is_centred(sae, heads, which, model.layer_norm)
    return Dictionary(sae, site, site, centred, fingerprint)


def _wrap_transcoder(
    sae: Any, which: SaeSetting, model: LanguageModel, fingerprint: str
) -> Dictionary:
    label, metadata = which.label, sae.cfg.metadata
    if which.centred is True:
        raise InputError(
            f"transcoder {label} reads the MLP's input; `centred = true` is for what is written to the "
            "residual stream; remove it"
        )
    written = metadata.hook_name_out
    if not written:
        raise InputError(
            f"transcoder {label} does not say where it writes (hook_name_out); expected "
            "blocks.L.hook_mlp_out; add it to its cfg.json"
        )
    hook = input_hook(hook_of(sae, which), metadata.hf_hook_name)
    source = _site_of(hook, label, model, reads_only=True)
    site = _site_of(written, label, model)
    if site.order < source.order:
        raise InputError(
            f"transcoder {label} writes {site.hook}, before what it reads, {source.hook}; expected a "
            "later place; correct its cfg.json"
        )
    _check_width(sae.cfg.d_in, source, label, model)
    _check_width(sae.cfg.d_out, site, label, model)
    return Dictionary(sae, site, source, False, fingerprint)


def _site_of(hook: str, label: str, model: LanguageModel, reads_only: bool = False) -> Site:
    site = parse_site(hook, model.n_layers, reads_only)
    if not model.has_site(site):
        raise InputError(
            f"SAE {label} reads {hook!r}, which a model of type {model.config.model_type!r} does not "
            "have; use an SAE of another place"
        )
    return site


def _check_width(given: int, site: Site, label: str, model: LanguageModel) -> None:
    width = model.site_width(site)
    if given != width:
        raise InputError(
            f"SAE {label} reads {given} dimensions, the model has {width} at {site.hook}; use an "
            "SAE trained on this model"
        )


def hook_of(sae: Any, which: SaeSetting) -> str:
    """The hook point that an SAE is used at: the setting's, or the one that its metadata names.

    Raises:
        InputError: neither names one.

    """
    hook = which.hook or sae.cfg.metadata.hook_name
    if not hook:
        raise InputError(
            f"SAE {which.label} does not name its hook point; set `hook` in the setting"
        )
    return str(hook)


def is_centred(sae: Any, heads: bool, which: SaeSetting, layer_norm: bool) -> bool:
    """Whether the SAE reads its site minus the mean: what centred writing weights amount to for
    all that is written to the stream of a LayerNorm model, and nothing to attention heads.

    Raises:
        InputError: ``centred = true`` for attention heads.

    """
    if which.centred == "auto":
        kwargs = sae.cfg.metadata.model_from_pretrained_kwargs or {}
        return bool(kwargs.get("center_writing_weights", False)) and layer_norm and not heads
    if which.centred and heads:
        raise InputError(
            f"SAE {which.label} reads attention heads; `centred = true` is for what is written to the "
            "residual stream; remove it"
        )
    return which.centred


def _load(which: SaeSetting, directory: Path, device: str) -> Any:
    sae = _load_whole(which, directory, device)
    return sae if which.first is None else first_features(sae, which.first, which.label)


def _load_whole(which: SaeSetting, directory: Path, device: str) -> Any:
    from safetensors import SafetensorError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if which.path is not None:
                folder = directory / which.path
                for name in ("cfg.json", "sae_weights.safetensors"):
                    if not (folder / name).is_file():
                        raise InputError(
                            f"SAE directory {folder} has no {name}; expected a directory in SAELens "
                            "format; correct `path`"
                        )
                check_architecture(folder)
                return load_folder(folder, device)
            return cache_first(lambda: load_listed(str(which.release), str(which.id), device))
        except InputError:
            raise
        except SafetensorError as error:
            raise InputError(
                f"SAE {which.label}: its safetensors file is broken ({error}); copy or download it "
                "again"
            ) from None
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            refused = None if which.path is not None else refusal(error, "SAE", which.label)
            if refused is not None:
                raise InputError(f"{refused}; or correct release and id") from None
            text = str(error).strip()
            reason = " ".join(text.split())[:200] if text else type(error).__name__
            raise InputError(
                f"SAE {which.label} cannot be loaded: {reason}; correct the release, id or path, or "
                "download it again"
            ) from error
