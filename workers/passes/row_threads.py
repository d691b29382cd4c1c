"""Rows of a table shared among threads, as many as torch may use."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

# Elements that are worth a thread: waking one takes some 50 microseconds.
WORTH = 1 << 18
# How many parts each thread has on average: one that is held up leaves the rest to the others.
PARTS = 4

# Threads do not survive a fork, and rank processes are forked: each process makes its own.
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)
    if key not in _pools:
        _pools.clear()
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="rows")
    return _pools[key]


def over_rows(counts: np.ndarray, work: Callable[[int, int], object]) -> None:
    """Call ``work(first, last)`` on parts of the rows, which have ``counts`` elements, (R,).

    What ``work`` does to a row must not depend on the part it is in.
    """
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    threads = min(torch.get_num_threads(), total // WORTH)
    if threads < 2:
        work(0, len(counts))
        return
    shares = np.arange(1, PARTS * threads) * (total / (PARTS * threads))
    bounds = [0, *np.searchsorted(ends, shares).tolist(), len(counts)]
    parts = iter(list(itertools.pairwise(bounds)))

    def take_parts() -> None:
        for first, last in parts:  # the next one, whoever asks
            work(first, last)

    others = [_pool(threads - 1).submit(take_parts) for _ in range(threads - 1)]
    take_parts()
    for other in others:
        other.result()
