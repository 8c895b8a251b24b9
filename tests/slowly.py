"""Labels of one push by full passes of an untouched Hugging Face network, and whether ours agree."""

from typing import Any

import families
import oracle
import pandas as pd
import pytest
from cleansteer.steering_eval.collateral import CollateralPanel
from torch import Tensor


def labels(
    network: Any,
    downstream: Any,
    hooks: tuple[str, str],
    panel: CollateralPanel,
    contexts: Tensor,
    push: Tensor,
    vocabulary_centred: bool,
) -> dict[str, float]:
    """All labels of ``push`` at the first hook, read by a SAELens object at the second."""
    found: dict[str, Any] = {}
    for name, change in (("clean", None), ("steered", push)):
        logits, values = families.run(network, contexts, hooks[1], hooks[0], change)
        if vocabulary_centred:
            logits = logits - logits.mean(dim=-1, keepdim=True)
        acts = downstream.encode(values)
        found[f"{name}_logits"], found[f"{name}_resid"] = logits, values
        found[f"{name}_panel"] = acts[:, panel.features]
        found[f"{name}_recon"] = downstream.decode(acts)
    return oracle.labels(**found, scales=panel.scales)


def agree(row: pd.Series, expected: dict[str, float], tolerance: float, crossing: float) -> None:
    """Every label is the expected one; counts may differ by threshold crossings, a share of contexts."""
    assert expected["effect_l2"] > 0.01
    for name, value in expected.items():
        slack = 1e-9
        if name == "collateral_per_effect":
            slack += crossing / expected["effect_l2"]
        elif "count" in name:
            slack += crossing
        elif name == "resid_explained":  # 1 minus a ratio, and that is what has the digits
            slack += tolerance * abs(1 - value)
        assert row[name] == pytest.approx(value, rel=tolerance, abs=slack), name
