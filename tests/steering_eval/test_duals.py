"""Products of dual numbers with plain matrices: the same derivatives, from fewer products."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from cleansteer.steering_eval.duals import PlainMatrices
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

N, WIDTH, OTHER = 6, 5, 4
MATRIX = torch.randn(WIDTH, OTHER, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BIAS = torch.arange(OTHER, dtype=torch.float64)

MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "addmm": lambda x: torch.addmm(BIAS, x, MATRIX),
    "addmm with factors": lambda x: torch.addmm(BIAS, x, MATRIX, beta=0.5, alpha=2.0),
    "linear": lambda x: functional.linear(x, MATRIX.T, BIAS),
    "linear, named bias": lambda x: functional.linear(x, MATRIX.T, bias=BIAS),
    "linear without bias": lambda x: functional.linear(x, MATRIX.T),
    "@": lambda x: x @ MATRIX,
    "matmul": lambda x: torch.matmul(x, MATRIX),
    "of a batch": lambda x: x[:, None] @ MATRIX.expand(N, -1, -1),
    "of two duals": lambda x: x @ x.T,
    "plain times dual": lambda x: MATRIX.T @ x.T,
    "with a dual matrix and bias": lambda x: torch.addmm(x[0, :OTHER], x, MATRIX * x[0, 0]),
}


def values(alike: bool) -> Tensor:
    drawn = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return drawn[:1].repeat(N, 1) if alike else drawn


def dual_of(
    work: Callable[[Tensor], Tensor], alike: bool, within: AbstractContextManager[Any]
) -> tuple[Tensor, Tensor]:
    tangents = torch.randn(
        N, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    with torch.no_grad(), forward_ad.dual_level(), within:
        value, tangent = forward_ad.unpack_dual(work(forward_ad.make_dual(values(alike), tangents)))
        assert tangent is not None
        return value.clone(), tangent.clone()


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("name", MAPS)
def test_values_and_derivatives_are_those_of_torch(name: str, alike: bool) -> None:
    ours = dual_of(MAPS[name], alike, PlainMatrices())
    theirs = dual_of(MAPS[name], alike, nullcontext())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


class Work(TorchDispatchMode):
    """Counts the rows that go through products of matrices."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.mm.default:
            self.rows += len(args[0])
        elif func is torch.ops.aten.addmm.default:
            self.rows += len(args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["addmm", "linear", "@"])
@pytest.mark.parametrize(("alike", "rows"), [(True, N + 1), (False, 2 * N)])
def test_nothing_is_multiplied_in_vain(name: str, alike: bool, rows: int) -> None:
    work = Work()

    def counted(x: Tensor) -> Tensor:
        with work:
            return MAPS[name](x)

    dual_of(counted, alike, PlainMatrices())
    assert work.rows == rows
