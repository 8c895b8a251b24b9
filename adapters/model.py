"""The tuner that PEFT puts over a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from peft.utils.integrations import skip_init_on_device
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.saes import is_centred
from ..core.weights import check_tensors
from .combining import LINEAR, combined, fill
from .components.component import build
from .config import SaeAdapterConfig, Target
from .identity import base_fingerprint, check_base
from .layer import BASE, NO_MERGE, SaeAdapterLayer, find_layer
from .opening import open_at
from .places import Place, find_place, has_layer_norm, text_config
from .positions import Positions, prompt_length, starts_of
from .slices import Slice

_ROOT = "base_model.model."


class SaeAdapterModel(BaseTuner):  # type: ignore[misc]
    """A Hugging Face causal language model with adapters on SAE latents (see
    :class:`SaeAdapterLayer`); made by ``peft.get_peft_model``.

    Only the components are trained, saved and loaded. SAEs are loaded as the configuration names
    them, cut to the allowed features, and kept out of the saved files.

    Raises:
        InputError: an SAE that is missing, broken, made for another model or another than the one
            that the adapter was trained with; a feature that it does not have; a hook point that
            the model does not have.

    """

    prefix = "cleansteer_"
    tuner_layer_cls = SaeAdapterLayer

    def _prepare_adapter_config(
        self, peft_config: SaeAdapterConfig, model_config: dict[str, Any]
    ) -> SaeAdapterConfig:
        return peft_config

    def _prepare_model(self, peft_config: SaeAdapterConfig, model: nn.Module) -> None:
        # All that can be wrong shows here and below, before anything of the model changes.
        fits = [load_target(Target.parse(target), model) for target in peft_config.targets]
        peft_config.targets = [fit.target.to_dict() for fit in fits]
        if not hasattr(self, "_positions"):
            self._positions = Positions(starts_of(text_config(model)))
            self._seeing: Any = None
            self._base = base_fingerprint(model, self.prefix)
        check_base(peft_config, self._base)
        peft_config.base_fingerprint = peft_config.base_fingerprint or self._base
        if self._seeing is None and not peft_config.which.every:
            see = partial(_see, self._positions)
            self._seeing = model.register_forward_pre_hook(see, prepend=True, with_kwargs=True)
        self._fits: dict[str, list[tuple[int, Fit]]] = {}
        for number, fit in enumerate(fits):
            self._fits.setdefault(fit.place.layer, []).append((number, fit))
        peft_config.target_modules = sorted(self._fits)

    @staticmethod
    def _check_target_module_exists(peft_config: SaeAdapterConfig, key: str) -> bool:
        return key in (peft_config.target_modules or ())

    def _create_and_replace(
        self,
        peft_config: SaeAdapterConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target
        if not isinstance(layer, SaeAdapterLayer):
            layer = SaeAdapterLayer(target)
            self._replace_module(parent, target_name, layer, target)
        # Taken out: a deleted adapter leaves nothing in memory.
        for number, fit in self._fits.pop(current_key):
            component = build(
                peft_config.component,
                fit.part.n_features,
                peft_config.component_options,
                peft_config.seed + number,
            )
            layer.add_edit(
                adapter_name, fit.place, fit.part, component, peft_config.which, self._positions
            )

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own, of which the adapters know how long the prompt is."""
        with self._positions.generating(prompt_length(args, kwargs)):
            return self.model.generate(*args, **kwargs)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        self._check_rows(names)
        layers = [m for m in self.model.modules() if isinstance(m, SaeAdapterLayer)]
        for layer in layers:
            layer.row_adapters = list(names)
        try:
            yield
        finally:
            for layer in layers:
                layer.row_adapters = None

    def _check_rows(self, names: Any) -> None:
        if self.training:
            # What is computed anew for a gradient would no longer know them.
            raise InputError(
                "adapter_names are given while training; expected a model in evaluation mode; call "
                "model.eval(), or train one adapter at a time"
            )
        for name in names:
            if name not in (BASE, *self.peft_config):
                raise InputError(
                    f"adapter_names has {name!r}; expected some of "
                    f"{', '.join((BASE, *self.peft_config))}; correct it"
                )

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = LINEAR,
    ) -> None:
        """Add an adapter whose edit is a weighted sum of others' edits, exactly: sum over i of w_i
        (z'_i - z) W_dec, all of them read from the same x. Components ``bias`` and ``scale`` alone.

        Args:
            adapters: names of those that it is made of.
            weights: w, one each; may be negative.
            adapter_name: of the new one, which does not become active.
            combination_type: ``linear``.

        Raises:
            InputError: another combination, names or weights that do not fit, components that are not
                linear in what they learn, or adapters that differ in component, positions or SAE.

        """
        made = combined(self.peft_config, adapters, weights, adapter_name, combination_type)
        self.peft_config[adapter_name] = made
        self.inject_adapter(self.model, adapter_name)
        by_hook = [
            {target.hook: target for target in map(Target.parse, self.peft_config[name].targets)}
            for name in (adapter_name, *adapters)
        ]
        for hook, target in by_hook[0].items():
            layer, place = find_layer(self.model, hook)
            components = getattr(layer, f"{self.prefix}{place}")
            parts = [
                (components[name], targets[hook], weight)
                for name, targets, weight in zip(adapters, by_hook[1:], weights, strict=True)
                if hook in targets
            ]
            fill(components[adapter_name].requires_grad_(False), target, parts)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # PEFT's own looks for a weight of the child, which a decoder layer does not have.
        setattr(parent, child_name, new_module)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: SaeAdapterConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        remapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        _check_weights(remapped, model, adapter_name, cls.prefix)
        return remapped

    def _check_merge_allowed(self) -> None:
        raise ValueError(NO_MERGE)

    def _unload_and_optionally_merge(self, merge: bool = True, **options: Any) -> nn.Module:
        if merge:
            self._check_merge_allowed()
        for module in self.model.modules():
            if isinstance(module, SaeAdapterLayer):
                module.remove_hooks()
        if self._seeing is not None:
            self._seeing.remove()
        base: nn.Module = super()._unload_and_optionally_merge(merge=False, **options)
        return base


def _check_weights(saved: dict[str, Tensor], model: nn.Module, adapter: str, prefix: str) -> None:
    """Refuse saved weights of an adapter that are not its own: PEFT warns at most, and leaves what
    is missing as it was drawn.
    """
    # PEFT writes this in front of every name, also where the model's own names lack it.
    found = {name.removeprefix(_ROOT): tensor for name, tensor in saved.items()}
    known = {name.removeprefix(_ROOT): tensor for name, tensor in model.state_dict().items()}
    own = {name for name in known if prefix in name and f".{adapter}." in name}
    check_tensors(
        f"adapter {adapter!r}",
        missing=own - found.keys(),
        unexpected=found.keys() - known.keys(),
        mismatched={
            f"{name} is {list(found[name].shape)}, expected {list(known[name].shape)}"
            for name in found.keys() & known.keys()
            if found[name].shape != known[name].shape
        },
        remedy="give the adapter_model.safetensors that belongs to its adapter_config.json",
    )


def _see(
    positions: Positions, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    layer = next((m for m in model.modules() if isinstance(m, SaeAdapterLayer)), None)
    # A pass without adapters, as of DPO's reference, says nothing of the tokens that they edit.
    if layer is not None and not layer.disable_adapters:
        positions.see(args, kwargs)


@dataclass(frozen=True)
class Fit:
    """A target in a model that it fits."""

    target: Target
    """With the SAE's fingerprint."""
    place: Place
    """Where its hook point lies."""
    part: Slice
    """The SAE's part that the target names."""


# An SAE has values also where PEFT makes an adapter's parameters on the meta device.
@skip_init_on_device  # type: ignore[untyped-decorator]
def load_target(target: Target, model: nn.Module) -> Fit:
    """Find a target's hook point in a model, and load its part of the SAE.

    Raises:
        InputError: see :class:`SaeAdapterModel`.

    """
    find_place(model, target.hook)  # before a large file is read
    return fit_target(target, model, *open_at(target.hook, target.sae, Path.cwd()))


def fit_target(target: Target, model: nn.Module, sae: Any, fingerprint: str) -> Fit:
    """The same with an SAE that is open.

    Raises:
        InputError: the model has no such hook point, or the SAE is another than the one that the
            target names, of another width, or lacks a feature.

    """
    place, label = find_place(model, target.hook), target.sae.label
    if target.fingerprint not in (None, fingerprint):
        raise InputError(
            f"SAE {label} has fingerprint {fingerprint}, the adapter is made for "
            f"{target.fingerprint}; expected the same SAE; give that one"
        )
    if sae.cfg.d_in != place.width:
        raise InputError(
            f"SAE {label} reads {sae.cfg.d_in} dimensions, the model has {place.width} at "
            f"{target.hook}; use an SAE trained on this model"
        )
    centred = is_centred(sae, place.name == "heads", target.sae, has_layer_norm(model, target.hook))
    part = Slice(sae, target.features, centred)
    return Fit(replace(target, fingerprint=fingerprint), place, part)
