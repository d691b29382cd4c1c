"""What a store says of runs and measurements: of what is closed by its index, else by its records.

An index entry counts only while its closing record stands. In a folder that is asked of each, one
``stat``: a record of another size or time is read, and so is that of a run whose folder has gone.
On an object store whoever removes a record says so in the index first (``bury_result``); what
was removed by hand there is found by ``doctor``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from functools import cached_property
from typing import Any

from sweeps.index import segments
from sweeps.index.closed_work import ClosedWork
from sweeps.spec import is_measurement
from sweeps.store.records import seal_of
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store


class Closings:
    """Work of a store, by id, as it stands now; of an object store its records are copied here.

    ``works`` restricts it to some ids: then only what the index does not vouch for is asked of an
    object store, which takes few requests. Without them it is everything the store has.
    """

    def __init__(self, store: Store, works: Collection[str] | None = None) -> None:
        self.works = works
        self.store = store.reading(())
        self.index = segments.read(self.store.root)
        self._mirrored = self.store.mirror is not None
        self._read: dict[str, ClosedWork | None] = {}
        self._standing: dict[str, bool] = {}
        self._ended: dict[str, str] = {}
        if works is None:
            self.store.look(None, but=self.index.entries)
        else:
            self.store.look([work_id for work_id in works if work_id not in self.index.entries])

    def folder(self, work_id: str) -> RunFolder:
        return self.store.work(work_id)

    def ids(self) -> list[str]:
        """Return what it is restricted to, or all that the store has, runs first."""
        if self.works is not None:
            return list(self.works)
        there = {folder.run_id for folder in [*self.store.runs(), *self.store.measurements()]}
        if self._mirrored:  # what the index vouches for was not copied
            there |= set(self.index.entries)
        return sorted(there, key=lambda work_id: (is_measurement(work_id), work_id))

    def closed(self, work_id: str) -> ClosedWork | None:
        """Return what the closing record says; None where there is none that can be read.

        Raises ValueError of a run with a result whose run.json cannot be read.
        """
        if work_id not in self._read:
            entry = self.index.entries.get(work_id)
            if entry is None or not self._stands(entry):
                entry = closed_work(self.folder(work_id), marked=not self._mirrored)
            self._read[work_id] = entry
        return self._read[work_id]

    def vouched_for(self, work_id: str) -> bool:
        """Return whether the index alone says that it is closed: of an object store, whose records
        are not asked for then."""
        return self._mirrored and work_id in self.index.entries

    def unindexed(self) -> list[str]:
        """Return what is closed and in no entry of the index that stands, but could be."""
        buried = {work_id for work_id, _ in self.index.gone}
        return [
            work_id
            for work_id in self.ids()
            if self.status(work_id) is not None
            and ((entry := self.index.entries.get(work_id)) is None or not self._stands(entry))
            and not (work_id in buried and self._is_made_again(work_id))
        ]

    def _is_made_again(self, work_id: str) -> bool:
        with contextlib.suppress(ValueError):
            closed = self.closed(work_id)
            return closed is not None and (work_id, closed.seal) in self.index.gone
        return True

    def status(self, work_id: str) -> str | None:
        """Return how a run or measurement ended; None where it has not."""
        entry = self.index.entries.get(work_id)
        if entry is not None and self._stands(entry):
            return str(entry.status)
        if work_id not in self._ended:
            done = self.folder(work_id).done()
            if done is None:
                return None
            self._ended[work_id] = str(done["status"])
        return self._ended[work_id]

    def attempts(self, work_id: str) -> list[dict[str, Any]]:
        """Return the attempts in order, as ``RunFolder.attempts``."""
        entry = self.index.entries.get(work_id)
        if entry is not None and (self._mirrored or self._attempts_stand(entry)):
            return entry.attempts
        return self.folder(work_id).attempts()

    def result(self, work_id: str) -> dict[str, Any] | None:
        """Return the ``result`` of a measurement's closing record; None where there is none."""
        if is_measurement(work_id):
            closed = self.closed(work_id)
            return None if closed is None else closed.result
        return None

    @cached_property
    def _rooms(self) -> tuple[str, str]:
        return f"{self.store.root}/runs", f"{self.store.root}/measurements"

    def _path(self, work_id: str) -> str:
        return f"{self._rooms[is_measurement(work_id)]}/{work_id}"

    def _stands(self, entry: ClosedWork) -> bool:
        """Return whether the closing record of an entry is there still, and is that very one."""
        if self._mirrored:
            return True
        if entry.work_id not in self._standing:
            self._standing[entry.work_id] = self._is_there(entry)
        return self._standing[entry.work_id]

    def _is_there(self, entry: ClosedWork) -> bool:
        try:
            found = os.stat(f"{self._path(entry.work_id)}/DONE.json")
        except OSError:
            return False
        mark = entry.mark
        if mark is not None and mark[:2] == [found.st_size, found.st_mtime_ns]:
            return True
        done = self.folder(entry.work_id).done()  # copied from another place, or another record
        return done is not None and seal_of(done) == entry.seal

    def _attempts_stand(self, entry: ClosedWork) -> bool:
        try:
            found = os.stat(f"{self._path(entry.work_id)}/attempts")
        except OSError:
            return False
        mark = entry.mark
        return mark is not None and mark[2] == found.st_mtime_ns


def closed_work(folder: RunFolder, *, marked: bool = True) -> ClosedWork | None:
    """Return what the records of a run or measurement say; None where it is not closed.

    Without ``marked`` the folder is a copy, whose times say nothing of the store. Raises ValueError
    where a run has a result and no run.json that can be read.
    """
    mark = _mark(folder) if marked else None  # first: of what changes meanwhile it then says so
    done = folder.done()
    if done is None:
        return None
    record = None if is_measurement(folder.run_id) else folder.record()
    if record is None and not is_measurement(folder.run_id):
        raise ValueError(f"{folder.path}: has a result and no run.json that can be read")
    result = done.get("result")
    head = folder.run_id, seal_of(done), done["status"], done["step"], done.get("loss"), mark
    rest: dict[str, Any] = {
        "parts": sorted(done["parts"]),
        "spec": record["spec"] if record else None,
        "facts": record["facts"] if record else {},
        "result": result if isinstance(result, dict) else None,
        **{name: done[name] for name in ("dose", "evaluation") if name in done},
    }
    return ClosedWork(head, folder.attempts(), rest)


def _mark(folder: RunFolder) -> list[int] | None:
    try:
        attempts = os.stat(f"{folder.path}/attempts")
        done = os.stat(f"{folder.path}/DONE.json")
    except OSError:
        return None
    return [done.st_size, done.st_mtime_ns, attempts.st_mtime_ns]


def add_to_index(store: Store, works: Collection[str]) -> set[str]:
    """Put what is closed of some runs and measurements into the index; return which are in it now.

    What has an open attempt, or cannot be read, is left for later. Raises OSError where the store
    does not take it.
    """
    reading = store.reading(works)
    index = segments.read(reading.root)
    entries, inside = [], set()
    for work_id in works:
        with contextlib.suppress(ValueError):
            found = closed_work(reading.work(work_id), marked=reading.mirror is None)
            if found is None or any(one["cause"] is None for one in found.attempts):
                continue
            inside.add(work_id)
            entry = index.entries.get(work_id)
            new = entry is None or entry.seal != found.seal or found.supersedes(entry)
            # A record that is made again, bit by bit, after it was thrown away stays buried.
            if new and (work_id, found.seal) not in index.gone:
                entries.append(found)
    segments.write_closed(reading.source.root, entries)
    return inside
