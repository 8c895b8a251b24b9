"""What is added to the residual stream: modes of steering and their strength."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

LEAST_VALUE = 1.0
_SMALLEST_NORM = 1e-12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Intervention:
    """A mode of steering: what is aimed at, and what is added for it.

    ``value(alpha, unit, q95)`` is the intervention value, ``[feature]``, of features with these units
    of strength; ``delta(value, activation)`` the multiple of the decoder direction that is added,
    ``[pair]``.
    """

    value: Callable[[float, Array, Array], Array]
    delta: Callable[[Array, Array], Array]


INTERVENTIONS: dict[str, Intervention] = {
    "add": Intervention(
        value=lambda alpha, unit, q95: alpha * unit,
        delta=lambda value, activation: value,
    ),
    "clamp_global": Intervention(
        value=lambda alpha, unit, q95: unit,
        delta=lambda value, activation: value - activation,
    ),
    "clamp_q95": Intervention(
        value=lambda alpha, unit, q95: np.maximum(q95, LEAST_VALUE),
        delta=lambda value, activation: value - activation,
    ),
    "matched": Intervention(
        value=lambda alpha, unit, q95: unit,
        delta=lambda value, activation: value,
    ),
}
"""Add alpha times the unit; clamp to c; clamp to max(own final_act_q95, 1.0); add what was found for
each feature by :mod:`.matching`, which is its unit. The unit of ``add`` is the global value c, or the
coefficient of a push as long as the residual stream.

Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
"""


def global_value(features: pd.DataFrame, sampled: NDArray[np.int64]) -> float:
    """Compute c, the median over the sampled features of max(final_act_q95, 1.0).

    Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
    """
    quantiles = features.set_index("feature").loc[sampled, "final_act_q95"].to_numpy()
    return float(np.median(np.maximum(quantiles, LEAST_VALUE)))


def residual_units(
    decoder: Float[Tensor, "feature d"], residual_norm: float
) -> Float[np.ndarray, " feature"]:
    """The coefficient by which each feature's push is as long as the residual stream: its median norm,
    BOS aside, over the norm of the decoder row.
    """
    norms = decoder.double().norm(dim=1).clamp_min(_SMALLEST_NORM)
    return np.asarray(residual_norm / norms.cpu().numpy())


def random_like(
    decoder: Float[Tensor, "feature d"], features: NDArray[np.int64], seed: int
) -> Float[Tensor, "chosen d"]:
    """Draw a random direction of each feature's decoder norm, from that feature and seed alone.

    Source: the replication's control (Bishnoi 2026; docs/protocol.md, Published figures).
    """
    drawn = torch.tensor(
        np.array([np.random.default_rng([seed, f]).normal(size=decoder.shape[1]) for f in features])
    )
    drawn /= drawn.norm(dim=1, keepdim=True)
    norms = decoder[torch.as_tensor(features)].double().cpu().norm(dim=1, keepdim=True)
    directions: Tensor = (drawn * norms).to(decoder)
    return directions
