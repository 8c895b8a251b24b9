"""Which features are worth training: by what they gain on the data, and what that costs elsewhere.

To first order in what is learnt (s), training gains g's, and to second it moves predictions on
reference text by the KL 1/2 s' F s (see :mod:`.gradients`). At a budget B of KL the most that features S
can gain is

    max g's with 1/2 s' F s <= B   =   sqrt(2 B g_S' F_SS^-1 g_S),

so that g_S' F_SS^-1 g_S is what a choice of features is worth: with F's diagonal alone the sum of
g_f^2 / F_ff.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.choices import Relevance
from .gradients import TextGradients

_POOL = 4
"""Candidates of the block for every feature that is taken."""
_MOST = 2000
"""Candidates of the block, whose size squared has to fit in memory."""
SHARE = 0.95
"""Of the worth of all allowed features, what those that are taken by themselves hold."""
LEAST = 50
"""The fewest that are taken so."""
MUCH_LARGER = 4
"""So many times fewer than are allowed they have to be."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How features are chosen of the allowed ones."""

    count: int | None = None
    """How many; None: see ``automatic``."""
    automatic: bool = True
    """Where no number is given: whether fewer are taken than are allowed, where far fewer hold nearly all
    that there is to gain (:func:`fitting_count`); otherwise all are trained."""
    by: Relevance = "gradient"


ALL = Rule(automatic=False)
"""Every feature that is allowed."""


@dataclass(frozen=True)
class Choice:
    """Features that were chosen."""

    indices: NDArray[np.int64]
    """Among the allowed ones, rising."""
    told: str
    """How, in words."""


def choose(
    gradient: Vector, sampled: TextGradients | None, count: int, by: Relevance = "gradient"
) -> Choice:
    """The features that are worth most.

    Args:
        gradient: g, of the loss with respect to a scaling (or push) of each allowed feature.
        sampled: gradients of the reference texts, tokens drawn, that F is estimated from; None for
            ``gradient``.
        count: how many are taken.
        by: ``gradient``: by the size of g alone; ``fisher``: by worth. The block of F is taken where
            features that it chooses on half of the reference texts are worth more by the other
            half than those that the diagonal chooses.

    """
    if by == "gradient" or sampled is None:
        return Choice(_largest(np.abs(gradient), count), "largest gradients")
    texts, n_tokens = sampled.by_text.numpy(), sampled.n_tokens
    pays = _block_pays(gradient, texts, n_tokens, count)
    rule, told = (_by_block, "block") if pays else (_by_diagonal, "diagonal")
    return Choice(
        rule(gradient, texts, n_tokens, count),
        f"largest gain at equal KL on the reference, by Fisher's information ({told})",
    )


def _block_pays(gradient: Vector, texts: NDArray[np.float64], n_tokens: float, count: int) -> bool:
    """Whether features that the block chooses on half of the texts are worth more by the other half."""
    one, other = texts[::2], texts[1::2]
    if not len(other):
        return False

    def judged(chosen: NDArray[np.int64]) -> float:
        return worth(gradient[chosen], shrunk(other[:, chosen], n_tokens / 2))

    block, diagonal = (
        judged(rule(gradient, one, n_tokens / 2, count)) for rule in (_by_block, _by_diagonal)
    )
    return block > diagonal


def fitting_count(scores: Vector) -> int | None:
    """How many features to take where nobody says: as few as hold 95 % of all scores' sum, 50 at least;
    None where that is not four times fewer than there are, so that all are trained.
    """
    falling = np.sort(scores)[::-1].cumsum()
    count = max(LEAST, int(np.searchsorted(falling, SHARE * falling[-1])) + 1)
    return count if falling[-1] > 0 and MUCH_LARGER * count <= len(scores) else None


def scores(gradient: Vector, sampled: TextGradients | None) -> Vector:
    """What each feature is worth alone: g^2, or g^2 / F_ff."""
    if sampled is None:
        return np.square(gradient)
    texts = sampled.by_text.numpy()
    return np.square(gradient) / _diagonal(texts, sampled.n_tokens)


def worth(gradient: Vector, fisher: NDArray[np.float64]) -> float:
    """G' F^-1 g."""
    return float(gradient @ np.linalg.solve(fisher, gradient))


def _diagonal(texts: NDArray[np.float64], n_tokens: float) -> Vector:
    """F_ff, and a text's share of the mean of all: of a feature that never fires on the reference nothing
    says that it costs nothing.
    """
    diagonal: Vector = np.square(texts).sum(axis=0) / n_tokens
    return diagonal + max(float(diagonal.mean()) / len(texts), np.finfo(np.float64).tiny)


def shrunk(texts: NDArray[np.float64], n_tokens: float) -> NDArray[np.float64]:
    """F, its entries off the diagonal shrunk by what they vary between texts (J. Schaefer and K.
    Strimmer, "A Shrinkage Approach to Large-Scale Covariance Matrix Estimation", Statistical Applications
    in Genetics and Molecular Biology 4 (2005), section 2.4, target D).
    """
    n = len(texts)
    product = texts.T @ texts
    squares = np.square(texts).T @ np.square(texts)
    variance = (squares - np.square(product) / n) * n / max(n - 1, 1)
    off = ~np.eye(len(product), dtype=bool)
    total = float(np.square(product[off]).sum())
    weight = min(1.0, float(variance[off].sum()) / total) if total > 0 else 1.0
    shrunk = (1 - weight) * product / n_tokens
    np.fill_diagonal(shrunk, _diagonal(texts, n_tokens))
    return shrunk


def _by_diagonal(
    gradient: Vector, texts: NDArray[np.float64], n_tokens: float, count: int
) -> NDArray[np.int64]:
    return _largest(np.square(gradient) / _diagonal(texts, n_tokens), count)


def _by_block(
    gradient: Vector, texts: NDArray[np.float64], n_tokens: float, count: int
) -> NDArray[np.int64]:
    """One after the other, each that adds most to the worth of those before it: a Cholesky factorisation
    whose pivot is what the residual gradient gains.
    """
    pool = _by_diagonal(gradient, texts, n_tokens, max(count, min(_POOL * count, _MOST)))
    fisher, left = shrunk(texts[:, pool], n_tokens), gradient[pool].copy()
    remaining = fisher.diagonal().copy()
    least = 1e-9 * remaining
    factor = np.zeros((len(pool), 0))
    taken: list[int] = []
    for _ in range(min(count, len(pool))):
        gains = np.square(left) / np.maximum(remaining, least)
        gains[taken] = -1.0
        at = int(gains.argmax())
        root = float(np.sqrt(max(remaining[at], least[at])))
        column = (fisher[:, at] - factor @ factor[at]) / root
        left -= column * (left[at] / root)
        remaining -= np.square(column)
        factor = np.column_stack([factor, column])
        taken.append(at)
    return np.sort(pool[taken])


def _largest(values: Vector, count: int) -> NDArray[np.int64]:
    """Indices of the largest values, rising; ties to the lower index."""
    order = np.argsort(-values, kind="stable")[:count]
    return np.sort(order)
