"""Whether the other ranks of a run are there, by beats beside its collectives.

A rank whose process ends closes its connections, and whoever waits for it in a collective hears of
it at once. One that is silently gone (its machine is off, its network is cut, its process stopped)
closes nothing: a collective would wait for all of COLLECTIVE_TIMEOUT. So a thread of each rank
beats in the store where the ranks have met, whatever the rank computes: a step may take as long as
it likes. The first rank watches the beats of all others, they watch its own. Who finds one silent
ends at once, as if killed, and so do the others that the first one can still tell: what a run has
in its store can go on from there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweeps.liveness.watch import BEATS, Watch, stale_seconds

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# A rank that is silent for so many times ``stale_seconds`` is gone; by default that is a minute. An
# attempt's heart may miss less, but whoever takes that one up loses nothing, and here a run does.
PATIENCE = 3.0
# What listeners may take for a last word to a store that may be away, too.
LAST_WORDS_SECONDS = 10.0
# Added to the beats of a rank that has done its work: its silence is no loss.
LEFT = 1 << 40
LOST = "lost"


class Peers:
    """The other ranks of the run that this process takes part in.

    ``end`` ends the process, with an exit code.
    """

    def __init__(self, end: Callable[[int], object] = os._exit) -> None:
        self._end = end
        self._listeners: list[Callable[[str], object]] = []
        self._left = threading.Event()
        self._beating: threading.Thread | None = None
        # The newest beats of each rank that this one watches, and which rank is known to be lost.
        self._beats: dict[int, int] = {}
        self._lost: int | None = None

    @contextmanager
    def told(self, listener: Callable[[str], object]) -> Iterator[None]:
        """Have ``listener`` called with a line, in a thread, before the process ends for a rank
        that is lost."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def watch(self, rank: int, size: int, store: Store) -> None:
        """Beat and watch from now until ``leave``, by a store that nothing else uses."""
        self._beats = dict.fromkeys(range(1, size) if rank == 0 else [0], 0)
        self._beating = _started(self._beat, rank, store)
        # Beside the one that beats, which waits for a store that is cut off.
        _started(self._look, size)

    def leave(self) -> None:
        """Say that this process ends and has done its work; takes a moment at most."""
        self._left.set()
        if self._beating is not None:
            self._beating.join(_pause())

    def _beat(self, rank: int, store: Store) -> None:
        told = 0
        try:
            while not self._left.wait(_pause()):
                store.add(str(rank), 1)
                for other in self._beats:
                    self._beats[other] = store.add(str(other), 0)
                if rank and (told := store.add(LOST, 0)):
                    self._lost = told - 1
                elif self._lost is not None and not told:
                    told = store.add(LOST, 1 + self._lost)
            store.add(str(rank), LEFT)
        except RuntimeError:
            return  # the process of the store has ended: no more beats are seen

    def _look(self, size: int) -> None:
        seen = {other: Watch(PATIENCE) for other in self._beats}
        while not self._left.wait(_pause()):
            for other, beats in self._beats.items():
                if not seen[other].sees_life(str(beats)) and beats < LEFT and self._lost is None:
                    self._lost = other
                    self._left.wait(3 * _pause())  # until it was told, and the others have asked
            if self._lost is not None and not self._left.is_set():
                self._go(self._lost, size)
                return

    def _go(self, lost: int, size: int) -> None:
        """Say a last word, and end the process: its main thread may wait in a collective."""
        seconds = PATIENCE * stale_seconds()
        line = (
            f"rank {lost} of {size} has been silent for {seconds:g} s: its machine, its process or"
            " the network between has stopped"
        )
        until = time.monotonic() + LAST_WORDS_SECONDS
        for last_word in [_started(listener, line) for listener in self._listeners]:
            last_word.join(max(0.0, until - time.monotonic()))
        self._end(1)


def _started(work: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, name="peers", daemon=True)
    thread.start()
    return thread


def _pause() -> float:
    return stale_seconds() / BEATS


PEERS = Peers()
