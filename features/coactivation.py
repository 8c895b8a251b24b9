"""Co-activation: with whom a feature fires."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

_BLOCK_ELEMENTS = 1 << 22
_PART_ENTRIES = 1 << 20


class Firings:
    """Which features fired at which token, kept on disk while they stream past.

    They are read again once the panel is known, and memory does not grow with the corpus.
    """

    def __init__(self, n_features: int) -> None:
        self._n_features = n_features
        self._folder = tempfile.TemporaryDirectory(prefix="cleansteer-")
        self._parts = 0
        self._waiting: list[tuple[NDArray[np.int32], NDArray[np.int64]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def add(self, features: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        """Add tokens: the features that fire, token after token, and how many at each."""
        self._waiting.append((features, counts))
        if sum(len(some) for some, _ in self._waiting) > _PART_ENTRIES:
            self._write()

    def _write(self) -> None:
        features = np.concatenate([features for features, _ in self._waiting])
        ends = np.cumsum(np.concatenate([[0], *(counts for _, counts in self._waiting)]))
        np.savez(Path(self._folder.name) / f"{self._parts}.npz", features=features, ends=ends)
        self._waiting = []
        self._parts += 1

    def patterns(self) -> Iterator[scipy.sparse.csr_array]:
        """``[token, feature]``, 1 where a feature fires, part by part."""
        if self._waiting:
            self._write()
        for number in range(self._parts):
            with np.load(Path(self._folder.name) / f"{number}.npz") as part:
                features, ends = part["features"], part["ends"]
            ones = np.ones(len(features), dtype=np.float32)
            yield scipy.sparse.csr_array(
                (ones, features, ends), shape=(len(ends) - 1, self._n_features)
            )


def measure_coactivation(
    firings: Firings, counts: NDArray[np.float64], panel_size: int
) -> dict[str, NDArray[np.float64]]:
    """Measure coact_entropy_norm and coact_count_mean.

    The panel is the ``panel_size`` features that fire at most tokens, ties to the lower index; a
    feature of the panel counts with itself. With n_fj the joint firings of f and panel feature j:
    coact_entropy_norm is the entropy of n_fj / sum_j n_fj over ln(panel size), 0 where there are
    none; coact_count_mean = sum_j n_fj / firings of f, 0 where f never fires.

    Args:
        firings: which features fired at which token.
        counts: how often each feature fired.
        panel_size: at most all features.

    Source: docs/protocol.md, Feature statistics (arXiv:2606.08365).
    """
    panel = np.argsort(-counts, kind="stable")[:panel_size]
    rows = max(1, _BLOCK_ELEMENTS // len(panel))
    entropy, total = np.zeros(len(counts)), np.zeros(len(counts))
    for start in range(0, len(counts), rows):
        block = slice(start, min(start + rows, len(counts)))
        joint = np.zeros((block.stop - block.start, len(panel)))
        for pattern in firings.patterns():
            here = pattern[:, start : block.stop].T @ pattern[:, panel]
            cells = here.tocoo()
            joint[cells.row, cells.col] += cells.data
        total[block] = joint.sum(axis=1)
        weighted = (joint * np.log(np.maximum(joint, 1.0))).sum(axis=1)  # 0 ln 0 is 0
        safe = np.maximum(total[block], 1.0)
        entropy[block] = np.log(safe) - weighted / safe
    return {
        "coact_entropy_norm": entropy / math.log(len(panel)) if len(panel) > 1 else 0 * entropy,
        "coact_count_mean": total / np.maximum(counts, 1.0),
    }
