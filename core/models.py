"""Language models: a Hugging Face model under TransformerLens' bridge."""

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .errors import InputError
from .settings import ModelSetting, Setting
from .sites import Site

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SAMPLED_ELEMENTS = 1 << 16
_PROBE_TOKENS = 8
_PROBE_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest difference of bridge and Hugging Face logits, relative to the largest logit: rounding."""


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model: the bridge to run it with hooks, and its parameters to run it faster."""

    bridge: Any
    """TransformerLens' ``TransformerBridge``, unprocessed: it computes what Hugging Face does."""
    config: Any
    """The Hugging Face configuration."""
    tokenizer: PreTrainedTokenizerBase
    parameters: dict[str, Tensor]
    """The Hugging Face model's own parameters by their names there, shared, not copied."""
    processing: str
    """``default`` or ``none``, as in protocol.md."""
    fingerprint: str

    @property
    def n_layers(self) -> int:
        return int(self.bridge.cfg.n_layers)

    @property
    def width(self) -> int:
        return int(self.bridge.cfg.d_model)

    @property
    def n_positions(self) -> int | None:
        """The longest sequence the model takes, None where nothing limits it."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def soft_cap(self) -> float | None:
        """Bound of the final logits' soft-cap (Gemma-2), None for models without one."""
        return getattr(self.config, "final_logit_softcapping", None)

    @property
    def layer_norm(self) -> bool:
        """Whether the final norm is a LayerNorm, which removes the mean (RMSNorm does not)."""
        return f"{self._final_norm}.bias" in self.parameters

    @property
    def vocabulary_centred(self) -> bool:
        """Whether logits are compared minus their mean over the vocabulary (protocol.md)."""
        return self.processing == "default" and self.soft_cap is None

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def _final_norm(self) -> str:
        for name in _FINAL_NORMS:
            if f"{name}.weight" in self.parameters:
                return name
        raise InputError(
            f"model of type {self.config.model_type!r} has no final norm under a known name; expected "
            f"one of {', '.join(_FINAL_NORMS)}; use a supported family"
        )

    def unembedding(self) -> Float[Tensor, "d vocab"]:
        """The unembedding as loaded, in float32 (float64 where the model is)."""
        for name in ("lm_head.weight", "embed_out.weight", *_TIED_EMBEDDINGS):
            if name in self.parameters:
                weight = self.parameters[name].detach()
                return weight.to(torch.promote_types(weight.dtype, torch.float32)).T
        raise InputError(
            f"model of type {self.config.model_type!r} has no unembedding under a known name; use a "
            "supported family"
        )

    def comparison_unembedding(self) -> Float[Tensor, "d vocab"]:
        """W_c with which a change of the final norm's *output* becomes a change of logits.

        ``unembedding()``, centred over the vocabulary where logits are compared so. The final
        norm's weight is not folded in: the norm's output already carries it.
        """
        unembedding = self.unembedding()
        if self.vocabulary_centred:
            unembedding = unembedding - unembedding.mean(dim=1, keepdim=True)
        return unembedding

    def processed_unembedding(self) -> Float[Tensor, "d vocab"]:
        """W of protocol.md, as TransformerLens processes it.

        With processing ``default`` the final norm's weight is folded in, for LayerNorm W is centred
        over the model dimension, and unless logits are soft-capped it is centred over the
        vocabulary. With ``none`` it is as loaded. Source: TransformerLens, ``fold_layer_norm`` and
        ``center_unembed``.
        """
        unembedding = self.unembedding()
        if self.processing == "none":
            return unembedding
        weight = self.parameters[f"{self._final_norm}.weight"].detach().to(unembedding.dtype)
        if self.config.model_type.startswith("gemma"):
            weight = weight + 1
        unembedding = unembedding * weight[:, None]
        if self.layer_norm:
            unembedding = unembedding - unembedding.mean(dim=0, keepdim=True)
        if self.vocabulary_centred:
            unembedding = unembedding - unembedding.mean(dim=1, keepdim=True)
        return unembedding

    @torch.no_grad()
    def residuals(
        self, tokens: Int[Tensor, "context token"], sites: list[Site]
    ) -> list[Float[Tensor, "context token d"]]:
        """The residual stream at some sites, without running the layers above the last of them."""
        boundaries = sorted({site.boundary for site in sites})
        stop = boundaries[-1] if boundaries[-1] < self.n_layers else None
        kept: dict[int, Tensor] = {}
        hooks = []
        for boundary in boundaries:
            if boundary == stop and boundary > 0:
                continue
            name = (
                f"blocks.{boundary}.hook_resid_pre"
                if boundary < self.n_layers
                else f"blocks.{boundary - 1}.hook_resid_post"
            )
            hooks.append((name, _keeper(kept, boundary)))
        if stop == 0:
            stop = 1
        output = self.bridge.run_with_hooks(
            tokens.to(self.device),
            fwd_hooks=hooks,
            **({} if stop is None else {"stop_at_layer": stop}),
        )
        if stop is not None and stop in boundaries:
            kept[stop] = output
        return [kept[site.boundary] for site in sites]


_FINAL_NORMS = ("transformer.ln_f", "gpt_neox.final_layer_norm", "model.norm")
_TIED_EMBEDDINGS = (
    "transformer.wte.weight",
    "gpt_neox.embed_in.weight",
    "model.embed_tokens.weight",
)


def _keeper(kept: dict[int, Tensor], boundary: int) -> Any:
    def keep(residual: Tensor, hook: object) -> None:
        kept[boundary] = residual

    return keep


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the progress bars and notices of the model libraries, not their errors."""
    import transformers
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    root_level = logging.getLogger().level
    transformers.logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        logging.getLogger().setLevel(root_level)


def load_model(setting: Setting, device: str = "cpu") -> LanguageModel:
    """Load the setting's model from a local directory or the hub (or its cache).

    Raises:
        InputError: the model is not found, its files are broken, or it is not one of a causal
            language model that TransformerLens' bridge knows.

    """
    import transformers
    from safetensors import SafetensorError

    wanted: ModelSetting = setting.model
    local = setting.locate(wanted.name)
    source = str(local) if local.is_dir() else wanted.name
    if not local.is_dir() and wanted.name.startswith((".", "/")):
        raise InputError(f"model directory {local} does not exist; correct [model] name")
    try:
        with quiet_libraries():
            network = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                dtype=_DTYPES[wanted.dtype],
                attn_implementation="eager",
                use_safetensors=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except SafetensorError as error:
        raise InputError(
            f"model {source}: its safetensors file is broken ({error}); copy or download it again"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model {source!r} cannot be loaded: {reason}; expected a local directory or a hub id of "
            "a causal language model with safetensors weights; correct [model] name"
        ) from error
    return wrap_model(network, tokenizer, wanted.processing, device)


def wrap_model(
    network: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    processing: str = "default",
    device: str = "cpu",
) -> LanguageModel:
    """Put TransformerLens' bridge over a Hugging Face model (which it changes in place).

    Raises:
        InputError: the bridge does not compute what Hugging Face does.

    """
    from transformer_lens.model_bridge import TransformerBridge

    network = network.to(device).eval().requires_grad_(False)
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    fingerprint = fingerprint_tensors(parameters)
    probe = torch.arange(_PROBE_TOKENS, device=device)[None]
    with torch.no_grad():
        expected = network(probe, use_cache=False).logits.float()
    name = network.config.name_or_path or network.config.model_type  # type: ignore[union-attr]
    with quiet_libraries():
        bridge = TransformerBridge.boot_transformers(
            str(name),
            device=device,
            dtype=parameters_dtype(parameters),
            tokenizer=tokenizer,
            hf_model=network,
        )
    bridge.eval()
    with torch.no_grad():
        difference = (bridge(probe).float() - expected).abs().max() / expected.abs().max()
    if not difference < _PROBE_TOLERANCE[parameters_dtype(parameters)]:
        raise InputError(
            f"model {name!r}: TransformerLens' bridge computes other logits than Hugging Face "
            f"(relative difference {difference:.2g}); expected the same; its configuration is not "
            "supported by the bridge, use another model"
        )
    return LanguageModel(bridge, network.config, tokenizer, parameters, processing, fingerprint)


def parameters_dtype(parameters: dict[str, Tensor]) -> torch.dtype:
    """The number format of a model's parameters."""
    return next(iter(parameters.values())).dtype


def fingerprint_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, as 16 hexadecimal digits.

    Tensors of up to 65,536 elements count whole; of larger ones that many, evenly spaced, so that
    a model of 8 billion parameters is identified in seconds.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().reshape(-1)
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensor.dtype}".encode())
        step = max(1, tensor.numel() // _SAMPLED_ELEMENTS)
        digest.update(tensor[::step].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
