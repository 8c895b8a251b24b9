"""The pairs of a plan in the order in which they are computed: context by context."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .choice import Plan


@dataclass(frozen=True)
class Visit:
    """Some features steered in one context."""

    context: int
    features: NDArray[np.int64]
    """Positions in the plan's features."""
    pairs: NDArray[np.int64]
    """Numbers of the pairs, feature after feature."""


def split_plan(plan: Plan, most_pairs: int) -> Iterator[list[Visit]]:
    """Split a plan's pairs by context, busiest contexts first, into parts of about ``most_pairs``:
    up to twice as many.
    """
    owners = np.repeat(np.arange(len(plan.features)), [len(u) for u in plan.union])
    where = np.concatenate(plan.union)
    counts = np.bincount(where)
    order = np.lexsort((np.arange(len(where)), where, -counts[where]))
    starts = np.flatnonzero(np.diff(where[order], prepend=-1))
    part: list[Visit] = []
    size = 0
    for whole in np.split(order, starts[1:]):
        for first in range(0, len(whole), most_pairs):
            pairs = whole[first : first + most_pairs]
            part.append(Visit(int(where[pairs[0]]), owners[pairs], pairs))
            size += len(pairs)
            if size >= most_pairs:
                yield part
                part, size = [], 0
    if part:
        yield part


def split_visits(visits: list[Visit], most_queries: int) -> Iterator[tuple[slice, list[Visit]]]:
    """Batch visits of similar length, so that padding them to the longest wastes little.

    Yields the place of their contexts among ``visits``, and the visits; a visit of more features
    than ``most_queries`` comes in pieces.
    """
    start = 0
    while start < len(visits):
        longest = len(visits[start].pairs)
        if longest >= most_queries:
            whole = visits[start]
            for first in range(0, longest, most_queries):
                cut = slice(first, first + most_queries)
                piece = Visit(whole.context, whole.features[cut], whole.pairs[cut])
                yield slice(start, start + 1), [piece]
            start += 1
            continue
        end = start + 1
        while end < len(visits):
            longest = max(longest, len(visits[end].pairs))
            if (end + 1 - start) * (longest + 1) > most_queries:
                break
            end += 1
        yield slice(start, end), visits[start:end]
        start = end
