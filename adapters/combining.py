"""Adapters made of others, weighted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .components.component import Component, component_class, names
from .config import SaeAdapterConfig, Target

LINEAR = "linear"


def combined(
    known: Mapping[str, SaeAdapterConfig],
    adapters: Sequence[str],
    weights: Sequence[float],
    name: str,
    combination: str,
) -> SaeAdapterConfig:
    """The configuration of a weighted sum of adapters; see ``SaeAdapterModel.add_weighted_adapter``.

    Raises:
        InputError: see there.

    """
    if combination != LINEAR:
        raise InputError(
            f"combination_type is {combination!r}; expected {LINEAR!r}, which is exact; give that"
        )
    if name in known:
        raise InputError(f"there is an adapter named {name!r} already; give another adapter_name")
    if not adapters or len(adapters) != len(weights) or not all(map(math.isfinite, weights)):
        raise InputError(
            f"adapters are {list(adapters)!r} and weights {list(weights)!r}; expected a finite number "
            "for each of at least one; correct them"
        )
    for adapter in adapters:
        if adapter not in known:
            raise InputError(
                f"adapter {adapter!r} is not there; expected some of {', '.join(known)}; load it first"
            )
    configs = [known[adapter] for adapter in adapters]
    first = configs[0]
    for config in configs:
        if not component_class(config.component).linear:
            linear = [each for each in names() if component_class(each).linear]
            raise InputError(
                f"component {config.component!r} is not linear in what it learns, so that a weighted sum "
                f"of such adapters is none; expected {' or '.join(linear)}; let several be active "
                "instead (set_adapter)"
            )
        for what in ("component", "positions", "edit_bos"):
            if getattr(config, what) != getattr(first, what):
                raise InputError(
                    f"adapters differ in {what}: {getattr(first, what)!r} and {getattr(config, what)!r}; "
                    "expected the same; combine adapters of one kind"
                )
    targets: dict[str, Target] = {}
    for config in configs:
        for given in config.targets:
            target = Target.parse(given)
            there = targets.get(target.hook)
            targets[target.hook] = target if there is None else _both(there, target)
    return replace(first, targets=[target.to_dict() for target in targets.values()])


def _both(one: Target, other: Target) -> Target:
    if one.fingerprint != other.fingerprint:
        raise InputError(
            f"adapters read {one.hook} through SAEs of fingerprints {one.fingerprint} and "
            f"{other.fingerprint}; expected the same; combine adapters of one SAE"
        )
    if one.features is None or other.features is None:
        return one.with_features(None)
    return one.with_features(sorted({*one.features, *other.features}))


@torch.no_grad()
def fill(
    made: Component,
    target: Target,
    parts: Sequence[tuple[Component, Target, float]],
) -> None:
    """Let a component's one parameter be the weighted sum of others', feature by feature."""
    total = _parameter(made)
    total.zero_()
    for component, theirs, weight in parts:
        values: Tensor = _parameter(component).to(total)
        total[_places(target, theirs, total)] += weight * values


def _places(target: Target, theirs: Target, total: Tensor) -> Any:
    if target.features is None:
        return slice(None) if theirs.features is None else theirs.features
    assert theirs.features is not None
    return [target.features.index(feature) for feature in theirs.features]


def _parameter(component: Component) -> nn.Parameter:
    (parameter,) = component.parameters()
    return parameter
