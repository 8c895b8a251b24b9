"""Activation statistics, accumulated from the firing entries only, in float64."""

import math

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

FIRES_ABOVE = 1e-6
_FLOOR = 1e-12
_VARIANCE_FLOOR = 1e-12
_FREQUENCY_FLOOR = 1e-8
_QUANTILE_BLOCK = 1024


class TokenMoments:
    """Moments, maxima and entropies of every feature over all tokens, as they stream past.

    Only entries that are not zero are visited, so the cost follows L0, not the dictionary's width.
    """

    def __init__(self, n_features: int) -> None:
        self.n_tokens = 0
        self._firings = np.zeros(n_features)
        self._nonzero = np.zeros(n_features)
        self._powers = np.zeros((4, n_features))
        self._weighted_log = np.zeros(n_features)
        self._positive_mass = np.zeros(n_features)
        self._largest = np.full(n_features, -np.inf)

    def add(self, features: NDArray[np.int64], values: NDArray[np.float64], n_tokens: int) -> None:
        """Add the non-zero activations of some tokens: ``values[i]`` belongs to ``features[i]``."""
        width = len(self._firings)
        self.n_tokens += n_tokens
        self._nonzero += np.bincount(features, minlength=width)
        self._firings += np.bincount(features, weights=values > FIRES_ABOVE, minlength=width)
        power = np.ones_like(values)
        for row in self._powers:
            power *= values
            row += np.bincount(features, weights=power, minlength=width)
        positive = np.maximum(values, 0.0)
        floored = np.maximum(positive, _FLOOR)
        self._positive_mass += np.bincount(features, weights=positive, minlength=width)
        self._weighted_log += np.bincount(
            features, weights=floored * np.log(floored), minlength=width
        )
        np.maximum.at(self._largest, features, values)

    @property
    def firings(self) -> NDArray[np.float64]:
        """At how many tokens each feature fired."""
        return self._firings

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """The token_* columns.

        token_act_std is biased, its variance floored at 1e-12; token_act_kurtosis = fourth central
        moment / variance squared; token_binary_entropy = -(p ln p + (1-p) ln(1-p)), p =
        token_act_freq clamped to [1e-8, 1-1e-8]; token_activation_entropy_norm = (ln S - (sum z ln
        z)/S) / ln(tokens), z and S floored at 1e-12 (so a feature that never fires gets an
        extreme value, as in the paper's script).

        Source: docs/protocol.md, Feature statistics (arXiv:2606.08365).
        """
        n = self.n_tokens
        mean, m2, m3, m4 = self._powers / n
        variance = np.maximum(m2 - mean**2, _VARIANCE_FLOOR)
        fourth = m4 - 4 * mean * m3 + 6 * mean**2 * m2 - 3 * mean**4
        frequency = self._firings / n
        p = np.clip(frequency, _FREQUENCY_FLOOR, 1 - _FREQUENCY_FLOOR)
        mass = np.maximum(self._positive_mass, _FLOOR)
        zeros = n - self._nonzero
        weighted_log = self._weighted_log + zeros * _FLOOR * math.log(_FLOOR)
        largest = np.where(zeros > 0, np.maximum(self._largest, 0.0), self._largest)
        return {
            "token_act_freq": frequency,
            "token_act_mean": mean,
            "token_act_std": np.sqrt(variance),
            "token_act_max": largest,
            "token_act_kurtosis": fourth / variance**2,
            "token_binary_entropy": -(p * np.log(p) + (1 - p) * np.log(1 - p)),
            "token_activation_entropy_norm": (np.log(mass) - weighted_log / mass) / math.log(n),
        }


def firing_medians(activations: scipy.sparse.csc_array) -> NDArray[np.float64]:
    """Median activation of every feature over the contexts in which it fires, from
    ``[context, feature]``; NaN where it fires in none.
    """
    entries = activations.tocoo()
    firing = entries.data > FIRES_ABOVE
    features, values = entries.col[firing], entries.data[firing].astype(np.float64)
    order = np.lexsort((values, features))
    counts = np.bincount(features, minlength=activations.shape[1])
    ends = np.cumsum(counts)
    medians = np.full(len(counts), np.nan)
    some = counts > 0
    middle = (ends - counts + (counts - 1) / 2)[some]
    low, high = np.floor(middle).astype(np.int64), np.ceil(middle).astype(np.int64)
    ordered = values[order]
    medians[some] = (ordered[low] + ordered[high]) / 2
    return medians


def measure_final_tokens(
    activations: scipy.sparse.csc_array,
) -> dict[str, NDArray[np.float64]]:
    """The final_act_* columns from the contexts' final activations, ``[context, feature]``.

    final_act_std is unbiased; final_act_q95 is the 95 % quantile over all contexts by linear
    interpolation.

    Source: docs/protocol.md, Feature statistics (arXiv:2606.08365).
    """
    names = ("freq", "mean", "std", "max", "q95")
    blocks: list[NDArray[np.float64]] = []
    for start in range(0, activations.shape[1], _QUANTILE_BLOCK):
        block = activations[:, start : start + _QUANTILE_BLOCK].toarray().astype(np.float64)
        blocks.append(
            np.stack(
                [
                    (block > FIRES_ABOVE).mean(axis=0),
                    block.mean(axis=0),
                    block.std(axis=0, ddof=1),
                    block.max(axis=0),
                    np.quantile(block, 0.95, axis=0),
                ]
            )
        )
    table = np.concatenate(blocks, axis=1)
    return {f"final_act_{name}": row for name, row in zip(names, table, strict=True)}
