"""Work on several threads, for libraries that let go of Python's lock."""

import itertools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from threadpoolctl import threadpool_limits

Result = TypeVar("Result")
Job = TypeVar("Job")


def by_rows(work: Callable[[slice], Result], n_rows: int) -> list[Result]:
    """Call ``work`` with slices that cover the rows, each on its own thread; results in order."""
    import torch  # here, since fitting a predictor needs none of it

    n_pieces = max(1, min(torch.get_num_threads(), n_rows))
    ends = [n_rows * i // n_pieces for i in range(n_pieces + 1)]
    pieces = [slice(first, last) for first, last in itertools.pairwise(ends)]
    first, *others = pieces
    if not others:
        return [work(first)]
    waiting = [_pool(n_pieces - 1).submit(work, piece) for piece in others]
    return [work(first), *(result.result() for result in waiting)]


def in_parallel(work: Callable[[Job], Result], jobs: Iterable[Job]) -> list[Result]:
    """``work`` of every job, as many at a time as there are cores; results in the order of the jobs.

    Meanwhile each job's linear algebra keeps to one thread, so that results do not depend on how
    many cores there are.
    """
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, jobs))


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that stay: new ones each time would each keep freed memory to themselves."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="rows")
