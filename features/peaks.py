"""Where features fire most: the most activating token of each context, and what it tells."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CONTEXTS = 100
"""Most contexts that count for a feature."""
FEWEST_CONTEXTS = 10
_BUFFER = 1 << 20
_COMPARED_AT_ONCE = 1 << 18


def peaks_of(
    contexts: NDArray[np.int64], features: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Of firings, those where a feature is most active in a context; among equals the one that comes
    first. Context by context, in each by feature.
    """
    order = np.lexsort((-values, features, contexts))
    starts = np.diff(contexts[order], prepend=-1) | np.diff(features[order], prepend=-1)
    first: NDArray[np.int64] = order[np.flatnonzero(starts)]
    return first


class Peaks:
    """The contexts in which each feature fires most, as they stream past: memory is bounded."""

    def __init__(self, n_features: int) -> None:
        self._n_features = n_features
        self._kept = _Entries.empty()
        self._new: list[_Entries] = []
        self._size = 0

    def add(
        self,
        contexts: NDArray[np.int64],
        features: NDArray[np.int64],
        values: NDArray[np.float64],
        tokens: NDArray[np.int64],
    ) -> None:
        """Add firings: which feature fired in which context, how much, at which token id.

        A context comes whole, in one call.
        """
        first = peaks_of(contexts, features, values)
        peaks = _Entries(
            features[first].astype(np.int32),
            values[first].astype(np.float32),
            tokens[first].astype(np.int32),
        )
        self._new.append(peaks)
        self._size += len(first)
        if self._size > _BUFFER:
            self._merge()

    def _merge(self) -> None:
        together = _Entries.join([self._kept, *self._new])
        # Stable: among equals the context that came first stays.
        order = np.lexsort((-together.values, together.features))
        features = together.features[order]
        starts = np.searchsorted(features, features)
        self._kept = together.take(order[np.arange(len(order)) - starts < CONTEXTS])
        self._new, self._size = [], 0

    def input_scores(self, promoted: NDArray[np.int64]) -> NDArray[np.float64]:
        """Score each feature by the share of its peaks that its own decoder direction promotes.

        input_score = |{t in T : t in l(f)}| / |T|: T holds, for each of the up to 100 contexts in
        which the feature fires most, the token where it does so; l(f) its ``promoted`` tokens,
        ``[feature, token]``. NaN for features that fire in fewer than 10 contexts.

        Source: arXiv:2505.20063, section 3.1, equation 8 (there the contexts are Neuronpedia's).
        """
        self._merge()
        features, tokens = self._kept.features, self._kept.tokens
        hit = np.zeros(len(features), dtype=bool)
        for start in range(0, len(features), _COMPARED_AT_ONCE):
            some = slice(start, start + _COMPARED_AT_ONCE)
            hit[some] = (promoted[features[some]] == tokens[some, None]).any(axis=1)
        count = np.bincount(features, minlength=self._n_features)
        hits = np.bincount(features, weights=hit, minlength=self._n_features)
        return np.where(count >= FEWEST_CONTEXTS, hits / np.maximum(count, 1), np.nan)

    def frequent_tokens(self, count: int) -> list[list[int]]:
        """The tokens at which each feature peaks most often in its up to 100 strongest contexts, up to
        ``count``, the most frequent first; among equals the one with the higher peak.
        """
        self._merge()
        peaks = pd.DataFrame(
            {"feature": self._kept.features, "token": self._kept.tokens, "peak": self._kept.values}
        )
        found = peaks.groupby(["feature", "token"], sort=False)["peak"].agg(["size", "max"])
        found = found.reset_index().sort_values(
            ["feature", "size", "max", "token"], ascending=[True, False, False, True]
        )
        found = found[found.groupby("feature").cumcount() < count]
        by_feature = found.groupby("feature")["token"].agg(list)
        return [by_feature.get(feature, []) for feature in range(self._n_features)]


class _Entries:
    def __init__(
        self, features: NDArray[np.int32], values: NDArray[np.float32], tokens: NDArray[np.int32]
    ) -> None:
        self.features, self.values, self.tokens = features, values, tokens

    @classmethod
    def empty(cls) -> "_Entries":
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int32))

    @classmethod
    def join(cls, parts: list["_Entries"]) -> "_Entries":
        return cls(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.tokens for part in parts]),
        )

    def take(self, rows: NDArray[np.int64]) -> "_Entries":
        return _Entries(self.features[rows], self.values[rows], self.tokens[rows])
