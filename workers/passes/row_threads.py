"""Rows of a table shared among threads, as many as torch may use.

Where torch has its threads from GNU's OpenMP the same ones do the work: others would share the
processors with them, since a team goes on looking for work, at full load, for some milliseconds
after each operation. Elsewhere Python's threads do it, and in a process forked from one that may
have had a team, which does not survive a fork.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

# Elements that are worth a thread: waking one takes some 50 microseconds.
WORTH = 1 << 18
# How many parts each thread has on average: one that is held up leaves the rest to the others.
PARTS = 4

MAPS, OF_TORCH = Path("/proc/self/maps"), Path(torch.__file__).parent


class Work(Protocol):
    """Machine code that is given the address of a job, and takes parts until there is none left.

    A job is of int64 numbers: how many of its parts are taken, the address of the rows between
    which parts lie, how many parts there are, and then the arguments. What the work does to a row
    must not depend on the part the row is in.
    """

    address: int
    ctypes: Callable[[int], None]


# Threads do not survive a fork, and rank processes are forked: each process makes its own.
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
# Whether this process was forked from one that had this module, and may have had a team. Ranks are
# forked from one that has not.
_forked = False


def over_rows(counts: np.ndarray, work: Work, arguments: Sequence[int]) -> None:
    """Do a work with its arguments on all rows, which have ``counts`` elements, (R,)."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    threads = max(1, min(torch.get_num_threads(), total // WORTH))
    parts = PARTS * threads if threads > 1 else 1
    shares = np.arange(1, parts) * (total / parts)
    bounds = np.array([0, *np.searchsorted(ends, shares), len(counts)], dtype=np.int64)
    job = np.array([0, bounds.ctypes.data, parts, *arguments], dtype=np.int64)
    if threads == 1:
        work.ctypes(job.ctypes.data)
    elif (team := None if _forked else _gnu_openmp()) is not None:
        team.GOMP_parallel(work.address, job.ctypes.data, threads, 0)
    else:
        pool = _pool(threads - 1)
        others = [pool.submit(work.ctypes, job.ctypes.data) for _ in range(threads - 1)]
        try:
            work.ctypes(job.ctypes.data)
        finally:  # an interrupt, too: they have addresses of what is gone once this has returned
            wait(others)
        for other in others:
            other.result()


@cache
def _gnu_openmp() -> Any:
    """Return the GNU OpenMP that torch has its threads from; None where it is not clear which."""
    try:
        maps = MAPS.read_text().splitlines()
    except OSError:  # not Linux
        return None
    paths = {line.split(maxsplit=5)[5] for line in maps if line.count("/")}
    found = [path for path in paths if Path(path).name.startswith("libgomp")]
    # Others may have brought one of another name; where torch's own is loaded, torch has that.
    found = [path for path in found if Path(path).is_relative_to(OF_TORCH)] or found
    if len(found) != 1:
        return None
    library = ctypes.CDLL(found[0])
    library.GOMP_parallel.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_uint,
        ctypes.c_uint,
    ]
    library.GOMP_parallel.restype = None
    return library


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)
    pool = _pools.get(key)  # of whoever steps beside us: it may be gone at the next look
    if pool is None:
        _pools.clear()
        pool = _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="rows")
    return pool


def _after_a_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_a_fork)
