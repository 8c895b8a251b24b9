"""Collateral spread: what steering moves downstream that nobody meant to touch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ..core.saes import Dictionary
from .spread import measure_spread

COUNT_THRESHOLDS = (0.01, 0.05, 0.1)
PRIMARY_THRESHOLD = 0.05
RELATIVE_THRESHOLDS = (0.05, 0.2, 0.5)
"""Shares of a panel feature's median activation where it fires."""
DENSE_ABOVE = 0.1
"""A panel feature that fires at more than this share of final tokens is dense."""
COLUMNS = (
    *(f"collateral_count_{threshold}" for threshold in COUNT_THRESHOLDS),
    "collateral_count_0.05_sparse",
    "collateral_l2",
    "collateral_effective",
    *(f"collateral_relative_count_{threshold}" for threshold in RELATIVE_THRESHOLDS),
    "collateral_relative_mass",
    "resid_delta_norm",
)
"""Columns of :meth:`CollateralReader.measure` that are means over contexts, in order."""
PRIMARY, RELATIVE = "collateral_count_0.05", "collateral_relative_mass"
"""What the collateral axis is made of: the paper's count, and what is moved in units of each panel
feature's own scale."""
_ELEMENTS = {"cpu": 1 << 22}
_ELEMENTS_DEFAULT = 1 << 27
SUM_COLUMNS = ("resid_unexplained_square", "resid_square")
"""Columns whose sums over contexts make up resid_explained."""


@dataclass(frozen=True)
class CollateralPanel:
    """The downstream features in which collateral is counted."""

    features: NDArray[np.int64]
    dense: NDArray[np.bool_]
    """Which of them fire at more than 10 % of the final tokens."""
    scales: NDArray[np.float64]
    """Median activation of each at the final tokens at which it fires; of one that fires at none, the
    median of the others'."""


def choose_panel(downstream: pd.DataFrame, size: int) -> CollateralPanel:
    """Choose the ``size`` downstream features that fire most often on clean final tokens.

    Ties go to the lower index.

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    frequency = downstream["final_act_freq"].to_numpy()
    order = np.argsort(-frequency, kind="stable")[:size]
    scales = downstream["final_firing_median"].to_numpy()[order]
    typical = 1.0 if np.isnan(scales).all() else float(np.nanmedian(scales))
    return CollateralPanel(
        downstream["feature"].to_numpy()[order],
        frequency[order] > DENSE_ABOVE,
        np.where(np.isnan(scales), typical, scales),
    )


class CollateralReader:
    """Reads the downstream panel: its columns of the SAE alone where that is exact and enough, else
    the whole SAE.
    """

    def __init__(
        self, downstream: Dictionary, panel: CollateralPanel, reconstruction: bool
    ) -> None:
        self._whole = downstream
        device = downstream.decoder.device
        whole = np.array_equal(panel.features, np.arange(downstream.n_features))
        self._panel = None if whole else torch.as_tensor(panel.features, device=device)
        self._sparse = torch.as_tensor(~panel.dense, device=device).to(downstream.sae.dtype)
        self._scales = torch.as_tensor(panel.scales, device=device).to(downstream.sae.dtype)
        self._reconstruction = reconstruction
        lean = downstream.independent and not reconstruction
        self._columns = downstream.columns(panel.features) if lean else None
        self.width = (self._columns or downstream).n_features
        """How many downstream features are encoded for a query."""

    @torch.no_grad()
    def measure(
        self, values: Float[Tensor, "context query d"]
    ) -> Float[Tensor, "context query-1 column"]:
        """``COLUMNS`` and ``SUM_COLUMNS`` of every query against query 0, the clean one.

        With U the change of the panel's activations, dh that of what the SAE reads and dr that of
        its reconstruction: counts of abs(U) above thresholds, the one at 0.05 again over those panel
        features that are not dense, norm of U, exp(entropy of abs(U)), norm of dh, norm2(dh - dr),
        norm2(dh). Without reconstruction norm2(dh - dr) is NaN.

        Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365); the count without
        dense features is a control of the replication (Bishnoi 2026).
        """
        read = self._whole.read(values)
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

    def _encode(
        self, read: Float[Tensor, "context query d"]
    ) -> Float[Tensor, "context query feature"]:
        sae = (self._columns or self._whole).sae
        activations: Tensor = sae.encode(read)
        return activations

    def _compare(
        self,
        moved: Float[Tensor, "context query d"],
        activations: Float[Tensor, "context query feature"],
        clean: Float[Tensor, "context 1 feature"],
        reconstructed: Float[Tensor, "context 1 d"] | None,
    ) -> Float[Tensor, "context query column"]:
        square = moved.square().sum(dim=-1)
        unexplained = torch.full_like(square, torch.nan)
        if reconstructed is not None:
            error = moved - (self._whole.sae.decode(activations) - reconstructed)
            unexplained = error.square().sum(dim=-1)
        change = activations - clean
        if self._columns is None and self._panel is not None:
            change = change[..., self._panel]
        change = change.abs_()
        spread = measure_spread(
            change.flatten(0, -2),
            COUNT_THRESHOLDS,
            self._sparse,
            PRIMARY_THRESHOLD,
            self._scales,
            RELATIVE_THRESHOLDS,
        )
        return torch.stack(
            [
                *(column.view(square.shape) for column in spread),
                square.sqrt(),
                unexplained,
                square,
            ],
            dim=-1,
        )
