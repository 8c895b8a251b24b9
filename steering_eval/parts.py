"""Measured pairs on disk, part by part: bounded memory, and work that survives a kill."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core.tables import write_atomically, write_table


@dataclass(frozen=True)
class MeasuredPairs:
    """What steering some pairs of a feature and a context led to."""

    pairs: Int[Tensor, " pair"]
    """Numbers of the pairs in their plan."""
    vectors: Float[Tensor, "pair d"]
    """Changes of the final norm's output."""
    measures: Float[Tensor, "pair column"]
    contexts: Int[Tensor, " context"]
    """The contexts of the pairs."""
    clean: Float[Tensor, "context d"]
    """The final norm's clean output of each."""

    @classmethod
    def join(cls, pieces: Sequence["MeasuredPairs"]) -> "MeasuredPairs":
        """Pieces one after the other."""
        return cls(
            torch.cat([piece.pairs for piece in pieces]),
            torch.cat([piece.vectors for piece in pieces]),
            torch.cat([piece.measures for piece in pieces]),
            torch.cat([piece.contexts for piece in pieces]),
            torch.cat([piece.clean for piece in pieces]),
        )


class PairStore:
    """Measured pairs, written in parts and read back by ranges of pairs; rows of labels made of
    them, block by block.

    A part is a safetensors file with the pairs in rising order, and the clean outputs of its
    contexts; it is there whole or not at all, so a part that is there need not be computed again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[Path, NDArray[np.int64]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, part: int) -> Path:
        return self._folder / f"part-{part:05d}.safetensors"

    def has(self, part: int) -> bool:
        """Whether a part is finished."""
        return self._path(part).is_file()

    def write(self, part: int, measured: MeasuredPairs) -> None:
        """Write a part."""
        order = torch.argsort(measured.pairs)
        tensors = {
            "pairs": measured.pairs[order],
            "vectors": measured.vectors[order].contiguous(),
            "measures": measured.measures[order].double().contiguous(),
            "contexts": measured.contexts,
            "clean": measured.clean.contiguous(),
        }
        write_atomically(self._path(part), lambda path: save_file(tensors, path))

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.safetensors"))

    def block(
        self, low: int, high: int
    ) -> tuple[Float[Tensor, "pair d"], Float[np.ndarray, "pair column"]]:
        """Vectors and measures of the pairs from ``low`` to ``high``, in the order of the pairs."""
        vectors: list[Tensor] = []
        measures: list[Tensor] = []
        numbers: list[NDArray[np.int64]] = []
        for path in self._parts():
            pairs = self._pairs(path)
            start, stop = np.searchsorted(pairs, [low, high])
            if start == stop:
                continue
            with safe_open(path, framework="pt") as file:
                vectors.append(file.get_slice("vectors")[start:stop])
                measures.append(file.get_slice("measures")[start:stop])
            numbers.append(pairs[start:stop])
        order = torch.as_tensor(np.argsort(np.concatenate(numbers)))
        return torch.cat(vectors)[order], torch.cat(measures)[order].numpy()

    def _pairs(self, path: Path) -> NDArray[np.int64]:
        if path not in self._numbers:
            with safe_open(path, framework="pt") as file:
                self._numbers[path] = file.get_tensor("pairs").numpy()
        return self._numbers[path]

    def clean(self, contexts: Int[Tensor, " context"]) -> Float[Tensor, "context d"]:
        """The final norm's clean outputs of some contexts."""
        outputs: dict[int, Tensor] = {}
        for path in self._parts():
            with safe_open(path, framework="pt") as file:
                here = file.get_tensor("contexts")
                wanted = torch.isin(here, contexts).nonzero().flatten()
                if len(wanted):
                    rows = file.get_tensor("clean")[wanted]
                    outputs.update(zip(here[wanted].tolist(), rows, strict=True))
        return torch.stack([outputs[context] for context in contexts.tolist()])

    def rows(self, block: int) -> pd.DataFrame | None:
        """A finished block of labels, None where it is not finished."""
        path = self._folder / f"rows-{block:05d}.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    def write_rows(self, block: int, table: pd.DataFrame) -> None:
        """Keep a finished block of labels."""
        write_table(self._folder / f"rows-{block:05d}.parquet", table)

    def remove(self) -> None:
        """Delete parts and rows."""
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()
