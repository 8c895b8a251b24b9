"""Plain models to compare ours with."""

import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

PAPER_ALPHA = 1.0
_TREES = 200
_BOOSTING = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 15,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
    "seed": 0,
}


def paper_ridge(X: Array, y: Array, new: Array) -> Array:
    """The paper's model: ridge with alpha 1 on standardised statistics, fitted and applied.

    Source: docs/protocol.md, Predictor sets (arXiv:2606.08365).
    """
    scaler = StandardScaler().fit(X)
    model = Ridge(alpha=PAPER_ALPHA).fit(scaler.transform(X), y)
    return np.asarray(model.predict(scaler.transform(new)))


def boosting(X: Array, y: Array, new: Array) -> Array:
    """LightGBM alone: 200 trees of 7 leaves on the statistics as they are, fitted and applied."""
    data = lightgbm.Dataset(X, y, params={"verbosity": -1})
    model = lightgbm.train(_BOOSTING, data, num_boost_round=_TREES)
    return np.asarray(model.predict(new, num_threads=1))
