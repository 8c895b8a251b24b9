"""What becomes of texts that a feature steers, against the same texts unsteered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[np.float64]

UNSTEERED = -1
"""In the place of a feature's index."""
REPEATED = 4
"""Tokens of what counts as repeated."""
MEASURES = ("surprise", "repetition", "promoted", "drift", "agreement")


def repetition(tokens: Sequence[int], n: int = REPEATED) -> float:
    """Share of the n-grams that repeat earlier ones, 1 - distinct / all.

    Source: Welleck et al. 2020 (arXiv:1908.04319), section 6.1, seq-rep-4.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class Continuations:
    """Texts by feature and prompt, and what was measured of each.

    Args:
        table: rows ``feature`` (:data:`UNSTEERED` for the texts without a push), ``prompt`` from 0,
            ``text``, ``surprisal`` (nats a token under the unsteered model), ``repetition``, and
            ``promoted``: the share of tokens that are among the feature's promoted ones, less their share
            in the unsteered text of the same prompt.

    """

    table: pd.DataFrame

    def measure(self, prompts: Sequence[int]) -> pd.DataFrame:
        """A row for every feature, by the texts of some prompts only.

        ``surprise``: mean surprisal less that of the unsteered texts, so exp(surprise) is by how many
        times the perplexity rose; ``repetition``, ``promoted``: means, less those of the unsteered
        texts; ``drift``: mean 1 - cosine of the TF-IDF vectors of a text and the unsteered one;
        ``agreement``: mean cosine, over pairs of prompts, of the changes of the TF-IDF vectors.
        """
        table = self.table[self.table["prompt"].isin(prompts)]
        means = table.groupby("feature")[["surprisal", "repetition", "promoted"]].mean()
        plain = means.loc[UNSTEERED]
        vectors, places, rows = self._vectors(), self._places(), []
        for feature in sorted(set(means.index) - {UNSTEERED}):
            steered, clean = (
                vectors[[places[f, prompt] for prompt in prompts]] for f in (feature, UNSTEERED)
            )
            own = means.loc[feature]
            rows.append(
                {
                    "feature": feature,
                    "surprise": own["surprisal"] - plain["surprisal"],
                    "repetition": own["repetition"] - plain["repetition"],
                    "promoted": own["promoted"],
                    "drift": float(np.mean(1 - (steered * clean).sum(axis=1))),
                    "agreement": mean_cosine((steered - clean).toarray()),
                }
            )
        return pd.DataFrame(rows).set_index("feature")

    def _places(self) -> dict[tuple[int, int], int]:
        keys = zip(self.table["feature"], self.table["prompt"], strict=True)
        return {(int(f), int(p)): at for at, (f, p) in enumerate(keys)}

    def _vectors(self) -> csr_array:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return csr_array(TfidfVectorizer().fit_transform(self.table["text"]))


def mean_cosine(rows: Array) -> float:
    """Mean cosine over pairs of rows; a row of zeros is at right angles to all."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, 1e-12)
    n = len(rows)
    own = float((unit * unit).sum())
    return (float(unit.sum(axis=0) @ unit.sum(axis=0)) - own) / (n * (n - 1))
