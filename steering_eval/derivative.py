"""Derivatives of the pass above a site: what any small push at the final token does there.

At a context c, J_c is the Jacobian of the final norm's output with respect to the steered site at the
final token, J'_c that of what stands at the tap. One Jacobian costs as much as steering about as many
features as the site is wide, and says what pushes of *all* directions do, to first order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad

from ..core.errors import InputError
from ..core.sites import Site
from .duals import PlainMatrices
from .forward import ForwardPass, Prefix

_MOST_QUERIES = {"cpu": 1024}
_MOST_QUERIES_DEFAULT = 1 << 13
_CONTEXTS_AT_ONCE = 8
_STEP = 1e-2
"""Of central differences, as a share of the root mean square of what stands at the site."""
_AGREE = 0.02
"""Largest relative difference of central differences with one step and with half of it."""


@dataclass(frozen=True)
class Jacobians:
    """First-order response of some contexts, at their final tokens.

    Row i of a Jacobian is the derivative along dimension i of the site, so that a push u, ``[width]``,
    moves the output by u J to first order. Numbers are float32 at least.
    """

    output: Float[Tensor, "context d"]
    """The final norm's clean output."""
    tapped: Float[Tensor, "context tap"]
    """What stands at the tap, clean."""
    to_output: Float[Tensor, "context width d"]
    to_tap: Float[Tensor, "context width tap"]


class Differentiator:
    """Derivatives of a forward pass, exact where the pass can be differentiated.

    Exact ones are forward-mode derivatives, one tangent for each dimension of the site; in the first
    context they are compared with a central difference along one direction (not in bfloat16, in which
    differences are rounding). Where an operation has none, or the two differ, all are central
    differences, whose step is checked against half of it.
    """

    def __init__(self, forward: ForwardPass, tap: Site, exact: bool = True) -> None:
        self._forward = forward
        self._tap = tap
        self.exact = exact
        """Whether derivatives are exact; becomes False where the pass turns out to have none."""
        self._checked = False

    @torch.no_grad()
    def jacobians(self, tokens: Int[Tensor, "context token"]) -> Iterator[Jacobians]:
        """The Jacobians of some contexts, one after the other.

        Of small models several contexts go through the pass at once, after the first was checked.

        Raises:
            InputError: the pass has no derivative, and differences with two steps disagree.

        """
        for some in tokens.split(_CONTEXTS_AT_ONCE):
            frozen, done = self._forward.freeze(some), 0
            while done < len(some):
                part = frozen.of(slice(done, min(done + self._together(frozen), len(some))))
                yield from self._of(part)
                done += len(part.final)

    def _together(self, prefix: Prefix) -> int:
        """How many contexts go through the pass at once: as many as their tangents fit."""
        checked = self.exact and self._checked
        return max(1, self._most_queries(prefix) // prefix.final.shape[1]) if checked else 1

    @staticmethod
    def _most_queries(prefix: Prefix) -> int:
        return _MOST_QUERIES.get(prefix.final.device.type, _MOST_QUERIES_DEFAULT)

    def _of(self, prefix: Prefix) -> Iterator[Jacobians]:
        """Those of the prefix' contexts, of which there is one unless derivatives are exact."""
        output, tapped = prefix.resume(prefix.final[:, None], self._tap)
        wide = torch.promote_types(output.dtype, torch.float32)
        parts = [each.to(wide) for each in (output[:, 0], tapped[:, 0], *self._derivatives(prefix))]
        for index in range(len(prefix.final)):
            yield Jacobians(*(part[index : index + 1] for part in parts))

    def _derivatives(
        self, prefix: Prefix
    ) -> tuple[Float[Tensor, "context width d"], Float[Tensor, "context width tap"]]:
        """Derivatives along every dimension of the site, in each context."""
        n, width = prefix.final.shape
        basis = torch.eye(width, dtype=prefix.final.dtype, device=prefix.final.device)
        most = self._most_queries(prefix) // n
        if self.exact:
            try:
                moved = _joined(self._push(prefix, some) for some in basis.split(most))
                self.exact = self._checked or self._agree(prefix, moved)
                self._checked = True
            except (NotImplementedError, RuntimeError) as error:
                if self._checked or not _has_no_derivative(error):
                    raise
                self.exact = False
        if not self.exact:
            moved = _joined(
                self._differences(prefix, some) for some in basis.split(max(1, most // 2))
            )
        return moved

    def _push(
        self, prefix: Prefix, tangents: Float[Tensor, "tangent width"]
    ) -> tuple[Float[Tensor, "context tangent d"], Float[Tensor, "context tangent tap"]]:
        """Forward-mode derivatives along some tangents, the same in every context."""
        with forward_ad.dual_level(), PlainMatrices():
            queries = prefix.final[:, None].expand(-1, len(tangents), -1).contiguous()
            dual = forward_ad.make_dual(queries, tangents.expand_as(queries).contiguous())
            output, tapped = prefix.resume(dual, self._tap)
            along_output, along_tap = (
                forward_ad.unpack_dual(each).tangent for each in (output, tapped)
            )
        assert along_output is not None
        assert along_tap is not None
        return along_output, along_tap

    def _agree(self, prefix: Prefix, moved: tuple[Tensor, Tensor]) -> bool:
        """Whether exact derivatives and a central difference agree along one direction of a context."""
        final = prefix.final
        if final.dtype == torch.bfloat16:
            return True
        drawn = torch.randn(1, final.shape[1], generator=torch.Generator().manual_seed(0))
        direction = (drawn / drawn.norm()).to(final)
        step = _STEP * float(final.norm().clamp_min(1e-6))
        different = self._central(prefix, direction, step)
        exact = (direction @ each for each in moved)
        return all(_apart(a, b) < _AGREE for a, b in zip(exact, different, strict=True))

    def _differences(
        self, prefix: Prefix, tangents: Float[Tensor, "tangent width"]
    ) -> tuple[Float[Tensor, "1 tangent d"], Float[Tensor, "1 tangent tap"]]:
        """Central differences along some tangents, by a step that agrees with half of it."""
        step = _STEP * float(prefix.final.float().square().mean().sqrt().clamp_min(1e-6))
        whole = self._central(prefix, tangents, step)
        some = tangents[:: max(1, len(tangents) // 8)]
        half = self._central(prefix, some, step / 2)
        for one, other in zip(whole, half, strict=True):
            apart = _apart(one[:, :: max(1, len(tangents) // 8)], other)
            if not apart < _AGREE:
                raise InputError(
                    "the model's pass cannot be differentiated: central differences with two steps "
                    f"differ by {apart:.2g}, expected less than {_AGREE:g}; set `response = false` in "
                    "[steering], or load the model in float32"
                )
        return whole

    def _central(
        self, prefix: Prefix, tangents: Float[Tensor, "tangent width"], step: float
    ) -> tuple[Float[Tensor, "1 tangent d"], Float[Tensor, "1 tangent tap"]]:
        queries = prefix.final[:, None] + step * torch.cat([tangents, -tangents])
        output, tapped = prefix.resume(queries, self._tap)
        n = len(tangents)
        wide = torch.promote_types(output.dtype, torch.float32)
        by_output, by_tap = (
            (each[:, :n].to(wide) - each[:, n:].to(wide)) / (2 * step) for each in (output, tapped)
        )
        return by_output, by_tap


def _joined(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Derivatives of the output and of the tap along all tangents, from those along some."""
    outputs, taps = zip(*parts, strict=True)
    return torch.cat(outputs, dim=1), torch.cat(taps, dim=1)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """Relative difference of two derivatives."""
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12))


def _has_no_derivative(error: Exception) -> bool:
    return "forward AD" in str(error) or "forward-mode" in str(error)
