"""What every component is, and their registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.errors import InputError
from . import steps


@dataclass(frozen=True)
class Option:
    """A number that a component takes; whole where its default is."""

    default: float
    least: float
    """Smallest value allowed."""
    meaning: str
    most: float = float("inf")
    """Largest value allowed."""


class Component(nn.Module):
    """Says by how much each latent changes: z' - z, from z. Zero when it is made.

    Its parameters are its own, not of modules inside it: PEFT finds an adapter's name as the last
    but one part of a parameter's name.

    Args:
        n_features: how many latents it edits.
        generator: of what is drawn at the start.

    """

    options: ClassVar[Mapping[str, Option]] = {}
    reads: ClassVar[bool] = True
    """True where the change depends on z; otherwise nothing is encoded, and z is None."""
    linear: ClassVar[bool] = False
    """True where z' - z is linear in its one parameter, a number for each feature."""
    amplitude: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that z' - z is linear in, with no others, so that all of it is scaled by
    scaling them; none: it is not known how."""
    moves_silent: ClassVar[bool] = True
    """True where a latent that is 0 on all that is trained on can get a change other than 0."""

    def __init__(self) -> None:
        super().__init__()
        steps.follow(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        steps.follow(self)  # a copy is trained like what it was copied from

    def forward(
        self, latents: Float[Tensor, "*any feature"] | None
    ) -> Float[Tensor, "*any feature"] | Float[Tensor, " feature"]:
        """Z' - z."""
        raise NotImplementedError

    def by_feature(self) -> Mapping[str, Float[Tensor, " feature"]]:
        """What it learnt, a number for each feature: the parameters that have one entry a feature, of
        matrices the norms of what they read of it and write to it.
        """
        return {name: value for name, value in self.named_parameters() if value.ndim == 1}

    def shrunk(self) -> Mapping[nn.Parameter, float]:
        """Parameters with an L1 penalty that is no part of the loss, and its weight: every optimiser's
        step is followed by a proximal one (see :mod:`.steps`). None, unless a component says otherwise.
        """
        return {}

    def penalty(self) -> Tensor:
        """The sum of these penalties, in units of the loss."""
        terms = [weight * parameter.abs().sum() for parameter, weight in self.shrunk().items()]
        return torch.stack(terms).sum() if terms else torch.zeros(())


WIDEST = 16_384
"""Largest width of what a component puts between latents: more would fill memory."""
_COMPONENTS: dict[str, type[Component]] = {}


def register(name: str, component: type[Component]) -> None:
    """Add a component.

    Raises:
        ValueError: the name is taken.

    """
    if name in _COMPONENTS:
        raise ValueError(f"a component named {name!r} is registered already")
    _COMPONENTS[name] = component


def names() -> tuple[str, ...]:
    """Names of all components."""
    return tuple(sorted(_COMPONENTS))


def component_class(name: str) -> type[Component]:
    """The component of a name.

    Raises:
        InputError: there is none.

    """
    if not isinstance(name, str) or name not in _COMPONENTS:
        raise InputError(
            f"component {name!r} is not known; expected one of {', '.join(names())}; choose one"
        )
    return _COMPONENTS[name]


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, float]:
    """The options of a component, defaults filled in.

    Raises:
        InputError: no such component, options that are no dictionary, an option that it does not
            take, or a value out of range.

    """
    known = component_class(name).options
    if not isinstance(options, Mapping):
        raise InputError(
            f"options of component {name!r} are {options!r}; expected a dictionary; change them"
        )
    for key in options:
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise InputError(
                f"option {key!r} does not apply to component {name!r}, which {takes}; leave it out"
            )
    checked = {}
    for key, option in known.items():
        value = options.get(key, option.default)
        whole = isinstance(option.default, int)
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or not isfinite(value) or not option.least <= value <= option.most:
            kind = "a whole number" if whole else "a finite number"
            least = f" of at least {option.least}" if isfinite(option.least) else ""
            most = f" and at most {option.most:g}" if isfinite(option.most) else ""
            raise InputError(
                f"option {key!r} of component {name!r} is {value!r}; expected {kind}{least}{most}; "
                "change it"
            )
        checked[key] = value
    return checked


def build(name: str, n_features: int, options: Mapping[str, Any], seed: int) -> Component:
    """A component for so many features, with checked options (see :func:`check_options`)."""
    generator = torch.Generator().manual_seed(seed)
    made: Any = component_class(name)
    return made(n_features, generator, **check_options(name, options))  # type: ignore[no-any-return]
