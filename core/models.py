"""Language models: a Hugging Face model under TransformerLens' bridge."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .contexts import first_and_last
from .errors import InputError
from .head import Head, measure_head, measure_input_scale
from .hub import no_network
from .networks import (
    check_causal,
    complete_biases,
    fingerprint_tensors,
    load_network,
    no_installs,
    parameters_dtype,
    quiet_libraries,
)
from .settings import Setting
from .sites import Site, Stage

_PROBE_TOKENS = 8
_LENS_ELEMENTS = 1 << 23
PROMOTED_TOKENS = 20
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
    """``default`` or ``none``, as in docs/protocol.md, Direct logits."""
    fingerprint: str
    head: Head
    """What happens to the logits behind the unembedding."""

    @property
    def n_layers(self) -> int:
        return int(self.bridge.cfg.n_layers)

    @property
    def width(self) -> int:
        return int(self.bridge.cfg.d_model)

    @property
    def text_config(self) -> Any:
        """The configuration of the part that reads text, where there are others."""
        return self.config.get_text_config()

    @property
    def n_positions(self) -> int | None:
        """The longest sequence the model takes, None where nothing limits it."""
        return getattr(self.text_config, "max_position_embeddings", None)

    @property
    def soft_cap(self) -> float | None:
        """Bound of the final logits' soft-cap (Gemma-2), None for models without one."""
        return self.head.soft_cap

    @cached_property
    def layer_norm(self) -> bool:
        """Whether the final norm removes the mean, as LayerNorm does and RMSNorm does not."""
        probe = self._norm_probe()
        shifted = self.normalise(probe + probe.abs().max())
        return bool(torch.allclose(shifted, self.normalise(probe), rtol=1e-2, atol=1e-2))

    @property
    def vocabulary_centred(self) -> bool:
        """Whether logits are compared minus their mean over the vocabulary
        (docs/protocol.md, Steering and its labels).
        """
        return self.processing == "default" and self.soft_cap is None

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def dtype(self) -> torch.dtype:
        return parameters_dtype(self.parameters)

    @torch.no_grad()
    def normalise(self, residual: Float[Tensor, "*any d"]) -> Float[Tensor, "*any d"]:
        """What enters the unembedding: the final norm, its weight and bias included."""
        normed = cast(Tensor, self.bridge.ln_final(residual.to(self.dtype)))
        return normed if self.head.input_scale == 1.0 else normed * self.head.input_scale

    def _norm_probe(self) -> Tensor:
        """A vector of mean 0, so large that the norm's epsilon is nothing: 1000, -1000, ..."""
        signs = 1 - 2 * (torch.arange(self.width, device=self.device) % 2)
        return (1000.0 * signs).to(self.dtype)

    def _norm_weight(self) -> Float[Tensor, " d"]:
        """The factor of each dimension after normalisation: (norm(x) - norm(-x)) / 2x at rms(x),
        whatever way the family stores it (Gemma keeps weight - 1).
        """
        probe = self._norm_probe()
        wide = torch.promote_types(self.dtype, torch.float32)
        there, back = (self.normalise(x).to(wide) for x in (probe, -probe))
        return (there - back) / 2 * probe.sign().to(wide)

    def unembedding(self) -> Float[Tensor, "d vocab"]:
        """The unembedding, with the factor s of :class:`.head.Head`, in float32 (float64 where the
        model is).
        """
        weight = cast(Tensor, self.bridge.unembed.W_U).detach()
        return self._scaled(weight.to(torch.promote_types(weight.dtype, torch.float32)))

    def unembedding_bias(self) -> Float[Tensor, " vocab"] | None:
        """The unembedding's bias in the number format of ``unembedding``, None without one."""
        bias = getattr(self.bridge.unembed, "b_U", None)
        if bias is None or not bool(bias.any()):
            return None
        bias = cast(Tensor, bias.detach().to(torch.promote_types(bias.dtype, torch.float32)))
        return self._scaled(bias)

    def _scaled(self, entries: Tensor) -> Tensor:
        return entries if self.head.scale == 1.0 else entries * self.head.scale

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
        """W of docs/protocol.md, Direct logits, as TransformerLens processes it.

        With processing ``default`` the final norm's weight is folded in, for LayerNorm W is centred
        over the model dimension, and unless logits are soft-capped it is centred over the
        vocabulary. With ``none`` it is as loaded. Source: TransformerLens, ``fold_layer_norm`` and
        ``center_unembed``.
        """
        unembedding = self.unembedding()
        if self.processing == "none":
            return unembedding
        unembedding = unembedding * self._norm_weight()[:, None].to(unembedding.dtype)
        if self.layer_norm:
            unembedding = unembedding - unembedding.mean(dim=0, keepdim=True)
        if self.vocabulary_centred:
            unembedding = unembedding - unembedding.mean(dim=1, keepdim=True)
        return unembedding

    @torch.no_grad()
    def promoted(
        self, directions: Float[Tensor, "n d"], count: int = PROMOTED_TOKENS
    ) -> Int[Tensor, "n count"]:
        """The tokens that directions of the residual stream promote most by themselves: the largest
        entries of norm(d) W, the final norm's weight and bias included (the logit lens).

        Source: arXiv:2505.20063, section 2.2, equation 4 (20 tokens).
        """
        unembedding, bias = self.unembedding(), self.unembedding_bias()
        count = min(count, unembedding.shape[1])
        found = torch.empty(len(directions), count, dtype=torch.long, device=unembedding.device)
        at_once = max(1, _LENS_ELEMENTS // unembedding.shape[1])
        for part, chosen in zip(directions.split(at_once), found.split(at_once), strict=True):
            logits = self.normalise(part).to(unembedding.dtype) @ unembedding
            if bias is not None:
                logits += bias
            chosen.copy_(logits.topk(count, dim=1).indices)
        return found

    def site_width(self, site: Site) -> int:
        """How many dimensions are read and written at a site."""
        return len(self._head_projection(site.layer)) if site.stage == Stage.HEADS else self.width

    def to_stream(self, directions: Float[Tensor, "n site"], site: Site) -> Float[Tensor, "n d"]:
        """Directions at a site as directions of the residual stream: those of attention heads
        through the output projection W_O (a norm behind it, as Gemma-2 has, left out).
        """
        if site.stage != Stage.HEADS:
            return directions
        return directions @ self._head_projection(site.layer).to(directions.dtype)

    def _head_projection(self, layer: int) -> Float[Tensor, "site d"]:
        projection = cast(Tensor, self.bridge.blocks[layer].attn.W_O).detach()
        return projection.reshape(-1, projection.shape[-1])

    def has_site(self, site: Site) -> bool:
        """Whether the model computes what the hook names: parallel layers have no middle."""
        if site.stage == Stage.ENTRY:
            return True
        return site.writing_hook in self.bridge.hook_dict and site.hook in self.bridge.hook_dict

    @torch.no_grad()
    def read(
        self, tokens: Int[Tensor, "context token"], sites: list[Site]
    ) -> list[Float[Tensor, "context token _width"]]:
        """What stands at some sites, without running the layers above the last of them.

        Attention heads come joined, ``[context, token, head * d_head]``.
        """
        last = max(site.layer + (site.stage != Stage.ENTRY) for site in sites)
        stop = max(last, 1) if last < self.n_layers else None
        kept: dict[tuple[int, int], Tensor] = {}
        hooks = [
            (self.reading_hook(site), _keeper(kept, site.order))
            for site in {site.order: site for site in sites}.values()
            if site.order != (stop, Stage.ENTRY)
        ]
        output = self.bridge.run_with_hooks(
            tokens.to(self.device),
            fwd_hooks=hooks,
            **({} if stop is None else {"stop_at_layer": stop}),
        )
        if stop is not None:
            kept.setdefault((stop, int(Stage.ENTRY)), output)
        return [kept[site.order] for site in sites]

    def reading_hook(self, site: Site) -> str:
        """The bridge's hook that shows what stands at a site."""
        if site.stage != Stage.ENTRY:
            return site.hook
        if site.layer < self.n_layers:
            return f"blocks.{site.layer}.hook_resid_pre"
        return f"blocks.{site.layer - 1}.hook_resid_post"

    def writing_hook(self, site: Site) -> str:
        """The bridge's hook that changes the forward pass at a site."""
        return self.reading_hook(site) if site.stage == Stage.ENTRY else site.writing_hook


def _keeper(kept: dict[tuple[int, int], Tensor], place: tuple[int, int]) -> Any:
    def keep(values: Tensor, hook: object) -> None:
        kept[place] = values.flatten(2)

    return keep


def load_model(setting: Setting, device: str = "cpu") -> LanguageModel:
    """Load the setting's model from a local directory, the hub's cache, or the hub.

    Raises:
        InputError: the model is not found, its files are broken, or it is not one of a causal
            language model that TransformerLens' bridge knows.

    """
    network, tokenizer = load_network(setting)
    return wrap_model(network, tokenizer, setting.model.processing, device)


def wrap_model(
    network: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    processing: str = "default",
    device: str = "cpu",
) -> LanguageModel:
    """Put TransformerLens' bridge over a Hugging Face model (which it changes in place).

    Raises:
        InputError: the bridge does not compute what Hugging Face does, or the tokenizer has neither
            BOS nor EOS.

    """
    from transformer_lens.model_bridge import TransformerBridge

    first_and_last(tokenizer)  # before the bridge gives it tokens that the model does not know
    network = network.to(device).eval().requires_grad_(False)
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    fingerprint = fingerprint_tensors(parameters)
    probe = torch.arange(_PROBE_TOKENS, device=device)[None]
    with torch.no_grad():
        expected = network(probe, use_cache=False).logits.float()
    check_causal(network)
    head = measure_head(network, probe)
    complete_biases(network)
    config: Any = network.config
    if not config.architectures:
        # Models made from a configuration do not say what they are; the bridge asks for it.
        config.architectures = [type(network).__name__]
    name = config.name_or_path or config.model_type
    # All is here; the bridge would ask the hub all the same, and install what it misses.
    with quiet_libraries(), no_network(), no_installs():
        try:
            bridge = TransformerBridge.boot_transformers(
                str(name),
                device=device,
                dtype=parameters_dtype(parameters),
                tokenizer=tokenizer,
                hf_model=network,
            )
            bridge.eval()
            logits = bridge(probe).float()  # the network takes no gradients
        except ValueError:
            raise InputError(
                f"model {name!r} is of type {config.model_type!r}, which TransformerLens' "
                "bridge does not know; expected a causal language model that it supports; use "
                "another model"
            ) from None
        except (AttributeError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
            raise InputError(
                f"model {name!r} of type {config.model_type!r} cannot be put under TransformerLens' "
                f"bridge ({type(error).__name__}: {' '.join(str(error).split())[:120]}); expected a "
                "causal language model that it supports; use another model"
            ) from error
    difference = (logits - expected).abs().max() / expected.abs().max()
    tolerance = _PROBE_TOLERANCE[parameters_dtype(parameters)]
    if not difference < tolerance:
        raise InputError(
            f"model {name!r}: TransformerLens' bridge computes other logits than Hugging Face "
            f"(relative difference {difference:.2g}); expected the same; its configuration is not "
            "supported by the bridge, use another model"
        )
    head = replace(head, input_scale=measure_input_scale(bridge, probe, str(name), tolerance))
    return LanguageModel(bridge, config, tokenizer, parameters, processing, fingerprint, head)
