"""Imports that stay for as long as the process, and so are nothing to collect."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Keep what is imported meanwhile from the garbage collector, which finds nothing there.

    torch and transformers are a million objects: to look through them again and again while they
    grow is a sixth of the time of importing them. Later it would be done in each rank that is
    forked from here, too, and have each write to memory that all of them share.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
