"""Whether something still beats, by looking at it for a while on one's own monotonic clock.

A beat is known by a version that changes. When it was written is not asked: that would compare the
clocks of two machines. Only of a process on this machine is the time of its last beat compared with
this machine's own clock, to answer at once.

What has been silent for ``stale_seconds`` counts as gone; DEPTHSWEEP_STALE_SECONDS in the
environment says another time than 20 s. All processes at a store must agree on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sweeps.errors import UserError

# Ten missed heartbeats: a busy disk or a long garbage collection is not a death.
STALE_SECONDS = 20.0
BEATS = 10
POLL_SECONDS = 0.5
STALE_VARIABLE = "DEPTHSWEEP_STALE_SECONDS"
# A watch that takes longer is told of.
NOTICE_SECONDS = 2.0

# Is told how many are being watched, and for how many seconds at most.
Told = Callable[[int, float], None]
_told: ContextVar[Told | None] = ContextVar("told", default=None)


class Watch:
    """Whether something still changes, as far as this process has been looking.

    It may be silent for ``patience`` times ``stale_seconds``.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self._patience = patience
        self._version: str | None = None
        self._quiet = 0.0
        self._seen = time.monotonic()

    def sees_life(self, version: str) -> bool:
        """Take in the version now; return whether it may still be changed by someone."""
        now = time.monotonic()
        if version != self._version:
            self._version, self._quiet = version, 0.0
        # Not having looked for long, as when the store was away, says little of the writer.
        self._quiet += min(now - self._seen, stale_seconds() / 4)
        self._seen = now
        return self._quiet < self._patience * stale_seconds()


def is_fresh(beat: float | None) -> bool:
    """Return whether a beat of a process on this machine, in seconds since 1970, is a recent one.

    False says nothing: the clock may have been set since.
    """
    return beat is not None and abs(time.time() - beat) < stale_seconds()


@contextmanager
def telling(say: Told) -> Iterator[None]:
    """Have ``say`` called once for each watch of this context that takes longer than 2 s."""
    token = _told.set(say)
    try:
        yield
    finally:
        _told.reset(token)


def tell(number: int) -> None:
    """Say that so many are being watched, to whoever asked to be told."""
    say = _told.get()
    if say is not None:
        say(number, stale_seconds())


def poll_seconds() -> float:
    """Return how often a watcher looks."""
    return min(POLL_SECONDS, stale_seconds() / BEATS)


def stale_seconds() -> float:
    """Return after how much silence something counts as gone; raise UserError for nonsense."""
    said = os.environ.get(STALE_VARIABLE)
    try:
        seconds = STALE_SECONDS if said is None else float(said)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise UserError(f"{STALE_VARIABLE}={said}: give a number of seconds above 0")
    return seconds
