"""A short text that changes when what a store holds of a sweep has: asked every few seconds.

What is closed is known from the index, so that the runs that go on are asked and few others: of a
sweep of 24,000 runs a poll takes two listings on an object store, and one ``stat`` a run in a
folder. The runs of the sweep are read again only when its record is another one.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator

from sweeps.files.listing import entries, listed_for, listings
from sweeps.files.whole_files import is_local
from sweeps.index import segments
from sweeps.index.closed_work import ClosedWork
from sweeps.store.store import Store

# What of a run's folder says that there is something new to draw.
WATCHED = ("steps", "attempts", "DONE.json")


class StoreState:
    """The state of one sweep, each time it is called."""

    def __init__(self, store: Store, sweep: str) -> None:
        self._store = store
        self._sweep = sweep
        self._lock = threading.Lock()  # every page asks, each in a thread of its own
        self._version = ""
        self._run_ids: list[str] = []

    def __call__(self) -> str:
        """Return what changes whenever a run of the sweep has new rows or has ended, or something
        was measured."""
        with self._lock:
            self._know_runs()
        index = segments.read(self._store.root).entries
        digest = hashlib.sha256(self._version.encode())
        for said in (
            self._in_a_folder(index) if is_local(self._store.root) else self._of_objects(index)
        ):
            digest.update(said.encode())
        return digest.hexdigest()[:16]

    def _know_runs(self) -> None:
        version = str(entries(self._store.sweep_folder(self._sweep)))
        if version != self._version or not self._run_ids:
            self._run_ids = [run.run_id for run in self._store.load_sweep(self._sweep).runs]
            self._version = version

    def _in_a_folder(self, index: dict[str, ClosedWork]) -> Iterator[str]:
        for measured in self._store.measurements():
            yield f"{measured.run_id} {(measured.path / 'DONE.json').exists()}\n"
        for run_id in self._run_ids:
            # A folder's time changes when a file in it appears, is renamed or goes; of what is
            # closed nothing does but all of it.
            folder = f"{self._store.root}/runs/{run_id}"
            inside = () if run_id in index else WATCHED[:2]
            for path in (folder, *(f"{folder}/{name}" for name in inside)):
                yield f"{_time(path)}\n"

    def _of_objects(self, index: dict[str, ClosedWork]) -> Iterator[str]:
        root = self._store.root
        for run_id in self._run_ids:
            if run_id in index:
                yield f"{run_id} {index[run_id].seal}\n"
        open_ones = {f"runs/{run_id}" for run_id in self._run_ids if run_id not in index}
        asked = listed_for(open_ones, ["runs"])
        for folder, found in listings(root, asked).items():
            for name, entry in found.items():
                key = f"{folder}/{name}"
                room, run_id, watched = key.split("/")[:3]
                if f"{room}/{run_id}" in open_ones and watched in WATCHED:
                    # The record of an attempt is a heartbeat too: that it is there is what counts.
                    version = "" if watched == "attempts" else entry.version
                    yield f"{key} {version}\n"
        for key, entry in entries(root / "measurements").items():
            if key.endswith("/DONE.json"):
                yield f"{key} {entry.version}\n"


def _time(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
