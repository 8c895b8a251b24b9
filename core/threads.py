"""Rows of work on as many threads as torch uses, for libraries that let go of Python's lock."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def by_rows(work: Callable[[slice], Result], n_rows: int) -> list[Result]:
    """Call ``work`` with slices that cover the rows, each on its own thread; results in order."""
    n_pieces = max(1, min(torch.get_num_threads(), n_rows))
    ends = [n_rows * i // n_pieces for i in range(n_pieces + 1)]
    pieces = [slice(first, last) for first, last in itertools.pairwise(ends)]
    first, *others = pieces
    if not others:
        return [work(first)]
    waiting = [_pool(n_pieces - 1).submit(work, piece) for piece in others]
    return [work(first), *(result.result() for result in waiting)]


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that stay: new ones each time would each keep freed memory to themselves."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="rows")
