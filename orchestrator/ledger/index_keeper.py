"""Puts what closes into the store's index while a sweep runs, so that readers find it there."""

from __future__ import annotations

import threading
from collections.abc import Collection
from types import TracebackType
from typing import Self

from sweeps.reading.closings import add_to_index
from sweeps.store.store import Store

# So many results are put into the index at once. Readers ask for as many runs one by one.
BATCH = 64
# How long the end of a sweep waits for a store that does not take the last ones.
LAST_SECONDS = 60.0


class IndexKeeper:
    """A thread that takes the ids of what has closed, and writes them down some at a time.

    The index is made of the records: what does not get there is found by the next sweep. A store
    that does not take it is no reason to stop.
    """

    def __init__(self, store: Store, closed: Collection[str]) -> None:
        """``closed`` has a result and is not in the index yet."""
        self._store = store
        self._waiting = set(closed)
        self._untried = len(self._waiting)
        self._ending = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="index of results", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._change:
            self._ending = True
            self._change.notify()
        self._thread.join(LAST_SECONDS)

    def closed(self, work_id: str) -> None:
        """Take in that a run or measurement has a result now."""
        with self._change:
            self._waiting.add(work_id)
            self._untried += 1
            self._change.notify()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._untried >= BATCH or self._ending)
                last, some = self._ending, set(self._waiting)
                self._untried = 0
            inside = self._written(some)
            with self._change:
                # What a worker has not let go of yet is tried again with the next.
                self._waiting -= inside
            if last:
                return

    def _written(self, some: Collection[str]) -> set[str]:
        try:
            return add_to_index(self._store, sorted(some)) if some else set()
        except Exception:
            return set()
