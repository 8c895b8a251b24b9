"""Dose-response: how strongly a feature can be steered before the model's predictions go astray."""

import numpy as np
import pandas as pd

KL = "kl_clean_steered"
DEFAULT_BUDGET = 0.1
"""Nats of KL divergence from the clean next-token distribution."""


def recommend(labels: pd.DataFrame, budget: float = DEFAULT_BUDGET) -> pd.DataFrame:
    """Recommend for each feature the largest coefficient whose KL stays within a budget.

    A row per feature: ``recommended_alpha`` and ``recommended_coefficient``, the strongest of the
    doses that were measured with mean ``kl_clean_steered`` <= ``budget`` (nats; contexts of type
    mixed), ``recommended_kl`` there, all NaN where even the weakest is above; ``kl_budget``;
    ``all_doses_within``: whether a stronger one than measured might do too.

    Args:
        labels: rows of several alphas for each feature, of one mode and context type.
        budget: in nats.

    """
    ordered = labels.sort_values(["feature", "alpha"], key=lambda column: column.abs())
    within = ordered[ordered[KL] <= budget].groupby("feature").tail(1).set_index("feature")
    features = np.unique(labels["feature"])
    strongest = ordered.groupby("feature")["alpha"].last()
    table = pd.DataFrame({"feature": features, "kl_budget": budget})
    for name, source in (
        ("recommended_alpha", "alpha"),
        ("recommended_coefficient", "coefficient"),
        ("recommended_kl", KL),
    ):
        table[name] = within[source].reindex(features).to_numpy(dtype=np.float64)
    table["all_doses_within"] = (
        table["recommended_alpha"].to_numpy() == strongest.loc[features].to_numpy()
    )
    return table
