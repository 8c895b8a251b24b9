"""Collateral spread: what steering moves downstream that nobody meant to touch."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ..core.concentration import effective_number
from ..core.saes import Dictionary

COUNT_THRESHOLDS = (0.01, 0.05, 0.1)
COLUMNS = (
    *(f"collateral_count_{threshold}" for threshold in COUNT_THRESHOLDS),
    "collateral_l2",
    "collateral_effective",
    "resid_delta_norm",
)
"""Columns of :meth:`CollateralReader.measure` that are means over contexts, in order."""
_ELEMENTS = {"cpu": 1 << 22}
_ELEMENTS_DEFAULT = 1 << 27
SUM_COLUMNS = ("resid_unexplained_square", "resid_square")
"""Columns whose sums over contexts make up resid_explained."""


def choose_panel(downstream: pd.DataFrame, size: int) -> NDArray[np.int64]:
    """The ``size`` downstream features that fire most often on clean final tokens.

    Ties go to the lower index. Source: protocol.md, Steering and its labels.
    """
    order = np.argsort(-downstream["final_act_freq"].to_numpy(), kind="stable")
    return downstream["feature"].to_numpy()[order[:size]]


class CollateralReader:
    """Reads the downstream panel, whole or by columns, whichever is exact and cheaper."""

    def __init__(
        self, downstream: Dictionary, panel: NDArray[np.int64], reconstruction: bool
    ) -> None:
        self._whole = downstream
        self._panel = torch.as_tensor(panel, device=downstream.decoder.device)
        self._reconstruction = reconstruction
        self._columns = (
            downstream.columns(panel) if downstream.independent and not reconstruction else None
        )

    @torch.no_grad()
    def measure(
        self, residual: Float[Tensor, "context query d"]
    ) -> Float[Tensor, "context query-1 column"]:
        """``COLUMNS`` and ``SUM_COLUMNS`` of every query against query 0, the clean one.

        With U the change of the panel's activations, dh that of what the SAE reads and dr that of
        its reconstruction: counts of abs(U) above thresholds, norm of U, exp(entropy of abs(U)),
        norm of dh, norm2(dh - dr), norm2(dh). Without reconstruction norm2(dh - dr) is NaN.

        Source: protocol.md, axis collateral (arXiv:2606.08365).
        """
        read = self._whole.read(residual)
        clean = self._encode(read[:, :1])
        reconstructed = self._whole.sae.decode(clean) if self._reconstruction else None
        width = clean.shape[-1]
        at_once = max(1, _ELEMENTS.get(read.device.type, _ELEMENTS_DEFAULT) // (len(read) * width))
        return torch.cat(
            [
                self._compare(part - read[:, :1], self._encode(part), clean, reconstructed)
                for part in read[:, 1:].split(at_once, dim=1)
            ],
            dim=1,
        )

    def _encode(self, read: Tensor) -> Tensor:
        sae = (self._columns or self._whole).sae
        activations: Tensor = sae.encode(read)
        return activations

    def _compare(
        self, moved: Tensor, activations: Tensor, clean: Tensor, reconstructed: Tensor | None
    ) -> Tensor:
        square = moved.square().sum(dim=-1)
        unexplained = torch.full_like(square, torch.nan)
        if reconstructed is not None:
            error = moved - (self._whole.sae.decode(activations) - reconstructed)
            unexplained = error.square().sum(dim=-1)
        change = activations - clean
        if self._columns is None:
            change = change[..., self._panel]
        change = change.abs_()
        return torch.stack(
            [
                *((change > threshold).sum(dim=-1) for threshold in COUNT_THRESHOLDS),
                change.norm(dim=-1),
                effective_number(change, change.sum(dim=-1)),
                square.sqrt(),
                unexplained,
                square,
            ],
            dim=-1,
        )
