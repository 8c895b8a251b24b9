"""What the evaluator asks of a forward pass: freeze contexts once, steer them many times."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from ..core.sites import Site


@runtime_checkable
class Prefix(Protocol):
    """Some contexts whose clean pass is done, ready for steered final tokens."""

    @property
    def final(self) -> Float[Tensor, "context width"]:
        """What stands at the steered site, clean, at the final token."""
        ...

    def of(self, contexts: slice) -> "Prefix":
        """The part of some consecutive contexts, sharing memory."""
        ...

    def resume(
        self, steered: Float[Tensor, "context query width"], tap: Site
    ) -> tuple[Float[Tensor, "context query d"], Float[Tensor, "context query tap"]]:
        """Run the model with each query in the place of ``final``.

        Returns the final norm's output and what stands at ``tap``, at the final token.
        """
        ...


@runtime_checkable
class ForwardPass(Protocol):
    """A model that can be steered at one site, at the final token."""

    def freeze(self, tokens: Int[Tensor, "context token"]) -> Prefix:
        """Run the clean pass of some contexts, and keep what steering does not touch."""
        ...


def push_queries(
    final: Float[Tensor, "context width"], pushes: Float[Tensor, "context query width"]
) -> Float[Tensor, "context query+1 width"]:
    """Queries for each context: first the clean one, then one for each push added to it."""
    queries = final[:, None].repeat(1, pushes.shape[1] + 1, 1)
    queries[:, 1:] += pushes.to(queries.dtype)
    return queries
