"""Products of dual numbers with plain matrices, without the work that forward mode wastes on them.

Of y = x A torch computes both dx A and x dA, the latter with zeros where A is plain; and x A for every
tangent, though all tangents share their x.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_MATMUL = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


class PlainMatrices(TorchFunctionMode):
    """While it is entered, products of a dual number with a plain matrix, and affine maps, cost one
    product along the tangents; another for the values, or that of one row where all rows are alike.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        terms = _terms(func, args) if not named else None
        if terms is not None:
            inputs, matrix, bias = terms
            value, tangent = forward_ad.unpack_dual(inputs)
            if tangent is not None and _plain(matrix) and (bias is None or _plain(bias)):
                product = _of_rows(value, matrix)
                if bias is not None:
                    product = product + bias
                return forward_ad.make_dual(product.contiguous(), tangent @ matrix)
        return func(*args, **named)


def _terms(
    func: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """x, A and b where a call means x A + b."""
    if func is torch.addmm and len(args) == 3:
        return args[1], args[2], args[0]
    if func is functional.linear and len(args) in (2, 3):
        return args[0], args[1].T, args[2] if len(args) == 3 else None
    if func in _MATMUL and len(args) == 2 and isinstance(args[1], Tensor):
        return args[0], args[1], None
    return None


def _plain(factor: Tensor) -> bool:
    return forward_ad.unpack_dual(factor).tangent is None


def _of_rows(value: Tensor, matrix: Tensor) -> Tensor:
    """A product; of one row only where all are alike, as a clean pass repeated for each tangent is."""
    if matrix.dim() == 2 and value.dim() > 1:
        rows = value.flatten(0, -2)
        if bool((rows == rows[:1]).all()):
            product: Tensor = (rows[:1] @ matrix).expand(len(rows), -1)
            return product.reshape(*value.shape[:-1], -1)
    return value @ matrix
