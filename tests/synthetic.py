"""Statistics and labels of made-up features, with as much to predict as is asked for."""

import numpy as np
import pandas as pd
from cleansteer.predictor.model.targets import ABSOLUTE

STATISTICS = (
    "final_act_freq",
    "final_act_mean",
    "decoder_norm",
    "crowding_max_abs_cos",
    "direct_logit_l2",
    "direct_logit_entropy",
)


def statistics(n: int, seed: int) -> pd.DataFrame:
    """``[feature, statistic]``: positive, skewed, some of them often 0, as real ones are."""
    generator = np.random.default_rng(seed)
    values = generator.lognormal(size=(n, len(STATISTICS)))
    values[:, 1] *= generator.random(n) < 0.7
    values[:, 2] = generator.normal(size=n)
    return pd.DataFrame(values, index=generator.permutation(10 * n)[:n], columns=list(STATISTICS))


def labels(table: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    """Targets that are linear in logarithms of the statistics, plus noise, each with its own."""
    generator = np.random.default_rng([seed, 1])
    logarithms = np.log1p(table.abs().to_numpy())
    weights = generator.normal(size=(len(STATISTICS), len(ABSOLUTE.targets)))
    signal = logarithms @ weights
    spread = signal / signal.std(axis=0)
    values = spread + noise * generator.normal(size=spread.shape)
    return pd.DataFrame(values, index=table.index, columns=list(ABSOLUTE.targets))
