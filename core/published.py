"""Published figures of the paper's settings: reference points beside our own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the replication reports of a setting, on its own contexts."""

    l0: float
    """Mean L0 of the steered SAE."""
    downstream_l0: float
    """Mean L0 of the downstream SAE."""
    n_eligible: int
    """Features with 0.002 <= final_act_freq <= 0.5."""


PUBLISHED = {
    "gpt2-small": Published(71.8, 60.0, 7532),
    "pythia-70m-deduped": Published(68.3, 118.6, 4375),
    "gemma-2-2b": Published(83.0, 79.3, 7517),
    "llama-3.1-8b": Published(32.2, 31.4, 2837),
}
"""Source: docs/protocol.md, Published figures (Y. Bishnoi, 2026). The Llama figures are those of the
8x SAEs; none are published for ``llama-3.1-8b-32x``."""

TABLES = {
    "gpt2-small": "gpt2_small",
    "pythia-70m-deduped": "pythia_70m_deduped",
    "gemma-2-2b": "gemma_2_2b",
    "llama-3.1-8b": "llama_3_1_8b",
}
"""Settings, and what the replication calls its tables of them."""

SAES = {
    "gpt2-small": ("standard", 24_576),
    "pythia-70m-deduped": ("standard", 32_768),
    "gemma-2-2b": ("jumprelu", 16_384),
    "llama-3.1-8b": ("topk", 32_768),
}
"""Kind (``standard`` is ReLU) and number of features of the SAEs. Source: docs/protocol.md, Settings
(arXiv:2606.08365)."""
N_LABELLED = 300
"""Labelled features of each setting, in the paper and in the replication's tables."""

RELIABILITY = {
    "gpt2_small": (0.960, 0.938, 0.903, 0.895, 0.617),
    "pythia_70m_deduped": (0.906, 0.759, 0.937, 0.946, 0.781),
    "gemma_2_2b": (0.925, 0.788, 0.602, 0.800, 0.711),
    "llama_3_1_8b": (0.946, 0.897, 0.520, 0.854, 0.375),
}
"""Reliability, between two halves of the contexts, of collateral_count_0.05, collateral_per_effect,
stability_abs, effect_l2 and kl_clean_steered in the replication's tables. Source: docs/protocol.md,
Published figures (Y. Bishnoi, 2026)."""
_RELIABLE = (
    "collateral_count_0.05",
    "collateral_per_effect",
    "stability_abs",
    "effect_l2",
    "kl_clean_steered",
)

RESIDUALISED = {
    "full_no_magnitude": {
        "collateral_count_0.05": (0.502, 0.517, 0.588, 0.263),
        "collateral_per_effect": (0.498, 0.477, 0.578, 0.310),
    },
    "geometry_only": {"collateral_count_0.05": (0.458, 0.011, 0.468, 0.099)},
    "freq_only": {"collateral_count_0.05": (-0.015, -0.018, -0.144, -0.031)},
}
"""Residualised 5-fold ridge, mean Spearman over folds, by predictor set and label, in the order of
``TABLES``. Source: docs/protocol.md, Published figures (Y. Bishnoi, 2026), which does not name the
predictor set of collateral_per_effect: on the replication's tables full_no_magnitude comes to 0.495,
0.470, 0.578, 0.311."""

CROWDING = {
    "gpt2_small": (0.482, -0.063),
    "pythia_70m_deduped": (-0.022, 0.009),
    "gemma_2_2b": (0.512, -0.012),
    "llama_3_1_8b": (0.222, -0.058),
}
"""Spearman of crowding_topk_mean_abs_cos with the collateral count, of features and of random
directions of the same norms. Source: docs/protocol.md, Published figures (Y. Bishnoi, 2026)."""


def reliability_for(table: str) -> dict[str, float]:
    """Published reliability of a table's labels, by target; empty where none is published."""
    return dict(zip(_RELIABLE, RELIABILITY.get(table, ()), strict=False))
