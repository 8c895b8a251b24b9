"""Measured pairs on disk, part by part: bounded memory, and work that survives a kill."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from ..core.tables import write_atomically

Array = NDArray[np.float32]


class PairStore:
    """Per pair a vector and some measures, written in parts, read back by ranges of pairs.

    A part is a safetensors file with the pairs' numbers in rising order; it is there whole or not
    at all, so a part that is found need not be computed again.
    """

    def __init__(self, folder: Path, n_pairs: int) -> None:
        self._folder = folder
        self._n_pairs = n_pairs
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, part: int) -> Path:
        return self._folder / f"part-{part:05d}.safetensors"

    def has(self, part: int) -> bool:
        """Whether a part is finished."""
        return self._path(part).is_file()

    def write(
        self, part: int, pairs: torch.Tensor, vectors: torch.Tensor, measures: torch.Tensor
    ) -> None:
        """Write a part: pair numbers ``[pair]``, vectors ``[pair, d]``, measures
        ``[pair, column]``.
        """
        order = torch.argsort(pairs)
        tensors = {
            "pairs": pairs[order],
            "vectors": vectors[order].contiguous(),
            "measures": measures[order].double().contiguous(),
        }
        write_atomically(self._path(part), lambda path: save_file(tensors, path))

    def blocks(self, boundaries: list[int]) -> Iterator[tuple[torch.Tensor, NDArray[np.float64]]]:
        """Vectors and measures of the pairs ``boundaries[i]`` to ``boundaries[i+1]``, block by
        block, in the order of the pairs.
        """
        paths = sorted(self._folder.glob("part-*.safetensors"))
        numbers = []
        for path in paths:
            with safe_open(path, framework="pt") as file:
                numbers.append(file.get_tensor("pairs").numpy())
        for low, high in itertools.pairwise(boundaries):
            vectors: list[torch.Tensor] = []
            measures: list[torch.Tensor] = []
            found: list[NDArray[np.int64]] = []
            for path, pairs in zip(paths, numbers, strict=True):
                start, stop = np.searchsorted(pairs, [low, high])
                if start == stop:
                    continue
                with safe_open(path, framework="pt") as file:
                    vectors.append(file.get_slice("vectors")[start:stop])
                    measures.append(file.get_slice("measures")[start:stop])
                found.append(pairs[start:stop])
            order = torch.as_tensor(np.argsort(np.concatenate(found)))
            yield torch.cat(vectors)[order], torch.cat(measures)[order].numpy()

    def remove(self) -> None:
        """Delete the parts."""
        for path in self._folder.glob("part-*.safetensors"):
            path.unlink()
        self._folder.rmdir()
