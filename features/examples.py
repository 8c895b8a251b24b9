"""Where each feature fires: its strongest context, a middling and a random one, and its tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from .peaks import peaks_of

KINDS = ("strongest", "middling", "random")
SAMPLED = 16
"""Contexts of each feature's uniform sample, from which the middling and the random one are taken."""
_BUFFER = 1 << 20


class Examples:
    """Contexts that show when features fire, chosen while they stream past: memory is bounded.

    Every context counts once, at its most activating token; the first token, BOS, does not count, nor do
    tokens that are not given (the sweep leaves massive ones out). The
    strongest is the context with the largest activation. A uniform sample of up to 16 of the others
    has the middling one, the median of the sample by activation, and a random one.

    Args:
        n_features: of the dictionary.
        n_contexts: all that will be added.
        seed: of the sample.
        starts: a number of each feature, ``[feature]``: features with different ones sample different
            contexts.

    """

    def __init__(
        self, n_features: int, n_contexts: int, seed: int, starts: NDArray[np.int64]
    ) -> None:
        self._order = np.random.default_rng([seed, n_contexts]).permutation(n_contexts)
        self._starts = starts
        self._strongest = pd.DataFrame(
            {
                "context": np.full(n_features, -1, np.int32),
                "position": np.full(n_features, -1, np.int32),
                "activation": np.zeros(n_features, np.float32),
            }
        )
        self._kept = _EMPTY
        self._new: list[pd.DataFrame] = []
        self._size = 0

    def add(
        self,
        contexts: NDArray[np.int64],
        positions: NDArray[np.int64],
        features: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        """Add firings: which feature fired in which context, at which position, how much.

        A context comes whole, in one call, token by token, and its number is that among all contexts.
        """
        later = np.flatnonzero(positions > 0)
        first = later[peaks_of(contexts[later], features[later], values[later])]
        peaks = pd.DataFrame(
            {
                "feature": features[first].astype(np.int32),
                "context": contexts[first].astype(np.int32),
                "position": positions[first].astype(np.int32),
                "activation": values[first].astype(np.float32),
            }
        )
        best = peaks.sort_values("activation", ascending=False, kind="stable")
        best = best.drop_duplicates("feature").set_index("feature")
        higher = best["activation"] > self._strongest["activation"].reindex(best.index)
        columns = list(self._strongest)
        self._strongest.loc[best.index[higher], columns] = best.loc[higher, columns]
        shifted = self._order[peaks["context"]] + self._starts[peaks["feature"]]
        self._new.append(peaks.assign(key=(shifted % len(self._order)).astype(np.int32)))
        self._size += len(peaks)
        if self._size > _BUFFER:
            self._merge()

    def _merge(self) -> None:
        together = pd.concat([self._kept, *self._new]).sort_values(["feature", "key"])
        # One more than is sampled: the strongest may be among them.
        self._kept = together[together.groupby("feature").cumcount() <= SAMPLED]
        self._new, self._size = [], 0

    def table(self) -> pd.DataFrame:
        """``feature``, ``kind``, ``context``, ``position``, ``activation``: a row for each of the
        ``KINDS`` that a feature has contexts for.
        """
        self._merge()
        strongest = self._strongest[self._strongest["context"] >= 0]
        strongest = strongest.rename_axis("feature").reset_index()
        top = self._strongest["context"].reindex(self._kept["feature"]).to_numpy()
        others = self._kept[self._kept["context"].to_numpy() != top]
        others = others[others.groupby("feature").cumcount() < SAMPLED]
        middling = _median(others)
        left = others.merge(middling[["feature", "context"]], how="left", indicator=True)
        random = left[left["_merge"] == "left_only"].drop_duplicates("feature")
        parts = zip(KINDS, (strongest, middling, random), strict=True)
        table = pd.concat([part.assign(kind=kind) for kind, part in parts])
        table["kind"] = pd.Categorical(table["kind"], KINDS, ordered=True)
        table = table.sort_values(["feature", "kind"]).astype({"kind": str})
        columns = ["feature", "kind", "context", "position", "activation"]
        chosen: pd.DataFrame = table[columns]
        return chosen.reset_index(drop=True)


_EMPTY = pd.DataFrame(
    {
        "feature": np.empty(0, np.int32),
        "context": np.empty(0, np.int32),
        "position": np.empty(0, np.int32),
        "activation": np.empty(0, np.float32),
        "key": np.empty(0, np.int32),
    }
)


def _median(others: pd.DataFrame) -> pd.DataFrame:
    """Of each feature the row at the middle by activation, the lower of two."""
    ordered = others.sort_values(["feature", "activation", "key"])
    place = ordered.groupby("feature").cumcount()
    count = ordered.groupby("feature")["feature"].transform("size")
    middle: pd.DataFrame = ordered[place == (count - 1) // 2]
    return middle


def token_pieces(contexts: Int[Tensor, "context token"], tokenizer: Any) -> list[list[str]]:
    """The text that each token adds to its context; a token that ends within a character adds
    nothing, the next one the whole character.
    """
    return [_pieces(row, tokenizer) for row in contexts.tolist()]


def _pieces(row: Sequence[int], tokenizer: Any) -> list[str]:
    pieces = [tokenizer.decode([token]) for token in row]
    if "".join(pieces) == tokenizer.decode(row):
        return pieces
    before, found = "", []
    for end in range(1, len(row) + 1):
        text = tokenizer.decode(row[:end]).rstrip("\ufffd")
        found.append(text[len(before) :])
        before = text if len(text) > len(before) else before
    return found
