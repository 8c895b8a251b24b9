"""Model families that the fast evaluator knows: one module each, registered by model type."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ...core.errors import InputError
from ...core.models import LanguageModel


class Blocks(Protocol):
    """A family's layers, cut open at attention.

    Every tensor has the model dimension last; leading dimensions are ``[context, position]``.
    """

    def project(self, layer: int, residual: Tensor, first_position: int) -> tuple[Tensor, ...]:
        """Query, key and value, ``[context, head, position, d_head]``, from the stream entering a
        layer; ``first_position`` is the place of position 0 in the sequence, where the family's
        positions matter to them.
        """
        ...

    def combine(self, layer: int, residual: Tensor, attended: Tensor) -> Tensor:
        """The stream leaving the layer, from the stream entering it and the heads' outputs
        ``[context, position, head * d_head]``.
        """
        ...

    def normalise(self, residual: Tensor) -> Tensor:
        """The final norm, its weight and bias included."""
        ...

    def scale(self, layer: int) -> float:
        """What attention scores are multiplied by."""
        ...


_FAMILIES: dict[str, Callable[[LanguageModel], Blocks]] = {}


def register(model_type: str, build: Callable[[LanguageModel], Blocks]) -> None:
    """Register a family under a Hugging Face ``model_type``.

    Raises:
        ValueError: the type is registered already.

    """
    if model_type in _FAMILIES:
        raise ValueError(f"family {model_type!r} is registered already")
    _FAMILIES[model_type] = build


def blocks_of(model: LanguageModel) -> Blocks:
    """The registered family of a model.

    Raises:
        InputError: the family is not supported.

    """
    model_type = model.config.model_type
    if model_type not in _FAMILIES:
        raise InputError(
            f"model type {model_type!r} is not supported by the evaluator; expected one of "
            f"{', '.join(sorted(_FAMILIES))}; use such a model"
        )
    return _FAMILIES[model_type](model)


def _register_all() -> None:
    from . import gpt2

    register("gpt2", gpt2.Gpt2Blocks)


_register_all()
