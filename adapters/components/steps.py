"""What is done before and after an optimiser's step, whoever takes it: TRL, or a loop of one's own.

An L1 penalty l1 |s| of a parameter s that is trained by a step in the metric D (its step on a gradient g
is -g / D) is followed by its proximal operator in the same metric:

    s <- sign(s) max(|s| - l1 / D, 0)

so that a step leaves s at 0 exactly where abs(g) <= l1, as at the minimum of loss + l1 |s|. For Adam D
is (sqrt(v) + eps) / lr, with v its mean of squared gradients, corrected for its start; for SGD D is
(1 - momentum) / ((1 - dampening) lr). A shrinkage by lr l1, as for plain gradient descent, would be next
to nothing beside Adam's step, which is about lr however small a gradient is.
"""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ...core.errors import InputError

if TYPE_CHECKING:
    from .component import Component

LEAST_RATE = 1e-3
"""Adam's learning rate below which parameters hardly leave where they start."""
_ADAM = (torch.optim.Adam, torch.optim.AdamW)
_FOLLOWED: "WeakSet[Component]" = WeakSet()
_SEEN: WeakSet[torch.optim.Optimizer] = WeakSet()
_HOOKS: list[Any] = []


def follow(component: "Component") -> None:
    """See to it that any optimiser's steps do what a component needs."""
    _FOLLOWED.add(component)
    if not _HOOKS:
        _HOOKS.append(register_optimizer_step_pre_hook(_before))
        _HOOKS.append(register_optimizer_step_post_hook(_after))


def _trained(optimizer: torch.optim.Optimizer) -> Iterator[tuple["Component", Any, nn.Parameter]]:
    """Components, group and parameter of what an optimiser trains of them."""
    owners = {id(p): component for component in _FOLLOWED for p in component.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in owners:
                yield owners[id(parameter)], group, parameter


def _before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Once for an optimiser: refuse one that cannot shrink, and tell of one that hardly moves."""
    if optimizer in _SEEN:
        return
    slow: dict[str, float] = {}
    for component, group, parameter in _trained(optimizer):
        if any(parameter is p for p, weight in component.shrunk().items() if weight):
            _check_kind(optimizer, component)
        # A schedule may begin at 0.
        rate = float(group.get("initial_lr", group["lr"]))
        if isinstance(optimizer, _ADAM) and rate < LEAST_RATE:
            slow[_name(component)] = rate
    _SEEN.add(optimizer)
    for name, rate in slow.items():
        warnings.warn(
            f"learning_rate: {too_slow(name, rate)}, or use cleansteer.adapters.SFTConfig",
            stacklevel=3,
        )


def too_slow(name: str, rate: float) -> str | None:
    """What to tell of a learning rate of Adam's that is far below what a component needs."""
    if rate >= LEAST_RATE:
        return None
    return (
        f"{rate:g} moves a parameter of the component {name!r} by about as much a step, so that it "
        f"learns next to nothing; expected {LEAST_RATE:g} or more, such as 0.03; raise it"
    )


def _check_kind(optimizer: torch.optim.Optimizer, component: "Component") -> None:
    if not isinstance(optimizer, (*_ADAM, torch.optim.SGD)):
        raise InputError(
            f"optimiser {type(optimizer).__name__} with the component {_name(component)!r}, whose "
            "penalty needs to know how long its steps are; expected Adam, AdamW or SGD of torch; use "
            "one of them"
        )


def _name(component: "Component") -> str:
    return type(component).__name__.lower()


@torch.no_grad()
def _after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Shrink what has a penalty."""
    if _is_skipped(optimizer):
        return
    weights = {id(p): w for component in _FOLLOWED for p, w in component.shrunk().items() if w}
    if not weights:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # A parameter without gradient has not been moved.
            if id(parameter) in weights and parameter.grad is not None:
                threshold = weights[id(parameter)] * _length(optimizer, group, parameter)
                parameter.copy_(parameter.sign() * (parameter.abs() - threshold).clamp(min=0))


def _is_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """True where a gradient scaler has found values that are not finite, and a step did nothing."""
    found: Tensor | None = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _length(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: nn.Parameter
) -> Tensor | float:
    """1 / D of the module's formula, for each entry of a parameter."""
    rate = float(group["lr"])
    if isinstance(optimizer, torch.optim.SGD):
        return rate * (1 - float(group["dampening"])) / (1 - float(group["momentum"]))
    state = optimizer.state[parameter]
    squares: Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    corrected: Tensor = squares / (1 - group["betas"][1] ** float(state["step"]))
    return rate / (corrected.sqrt() + float(group["eps"]))
