"""The claim to be a run's one writer, on files and on objects, and the heartbeat that keeps it.

In a folder a number is claimed by creating ``attempts/<n>.json`` exclusively, as a hard link, and
its modification time is the heartbeat.

On an object store every claimant puts ``attempts/<n>.<token>.claim`` under a token of its own, then
lists. Only whose second listing is the first one plus its own claim has won the number; any other
withdraws and tries again after a random pause. Of two at once the one that puts last sees the
other, so two never win. Claims stay for as long as the run does: a claimant that slept meanwhile
finds them. The winner alone writes ``attempts/<n>.json``, and writing it anew is its heartbeat.

A successor judges a heartbeat by whether the object changes while it watches, on its own monotonic
clock: no two machines need to agree on the time.
"""

from __future__ import annotations

import json
import os
import platform
import random
import secrets
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.errors import UserError
from sweeps.files.objects import Entry, ObjectPath
from sweeps.files.patience import patiently
from sweeps.files.whole_files import Place, create_json, read_if_readable, write_json
from sweeps.store.records import attempt_record
from sweeps.store.store import RunFolder

# Ten missed heartbeats: a busy disk or a long garbage collection is not a death.
STALE_SECONDS = 20.0
BEATS = 10
POLL_SECONDS = 0.5
STALE_VARIABLE = "DEPTHSWEEP_STALE_SECONDS"
# The longest a claimant that met another one pauses, in seconds.
LONGEST_PAUSE = 4.0


class FileClaim:
    """The claim of the next number of a run in a local folder: an exclusive hard link."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @property
    def _path(self) -> Path:
        return _local(self._folder.attempt_path(self.number))

    def take(self, record: dict[str, Any]) -> int:
        """Wait out a live predecessor, claim the next number, and return it."""
        while True:
            newest = self._folder.newest_attempt()
            if newest is not None and is_alive(self._folder, newest):
                time.sleep(poll_seconds())
                continue
            self.number: int = newest["attempt"] + 1 if newest else 1
            if patiently(partial(create_json, self._path, record), self._path):
                return self.number

    def holds(self) -> bool:
        """Return whether no later attempt has claimed the run and nobody has forgotten it."""
        return self._path.exists() and not self._folder.attempt_path(self.number + 1).exists()

    def write(self, record: dict[str, Any]) -> None:
        """Put the record in place, unless the run was forgotten meanwhile."""
        if self._path.exists():
            patiently(partial(write_json, self._path, record), self._path)

    def beat(self, record: dict[str, Any]) -> bool:
        """Touch the record; return False once there is nothing left to beat for."""
        del record
        try:
            os.utime(self._path)
        except FileNotFoundError:
            return False
        return True


class Watch:
    """Whether something still changes, as far as this process has been looking."""

    def __init__(self) -> None:
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
        return self._quiet < stale_seconds()


class ObjectClaim:
    """The claim of the next number of a run, from taking it to its last heartbeat."""

    def __init__(self, folder: RunFolder) -> None:
        assert isinstance(folder.path, ObjectPath)
        self._place = folder.path / "attempts"
        self._token = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._beats = 0

    def take(self, record: dict[str, Any]) -> int:
        """Wait out a live predecessor, claim the next number, and return it."""
        watch, pause = Watch(), poll_seconds()
        owner = json.dumps({"node": record["node"], "pid": record["pid"]}).encode()
        while True:
            before = self._place.entries()
            newest = _newest(before)
            if newest and _lives(self._place, before, newest, watch):
                time.sleep(poll_seconds())
                continue
            self.number = newest + 1
            self._claim = f"{self.number}.{self._token}.claim"
            (self._place / self._claim).write_bytes(owner)
            if set(self._place.entries()) == {*before, self._claim}:
                self.write(record)
                return self.number
            (self._place / self._claim).unlink()
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def holds(self) -> bool:
        """Return whether no later attempt has claimed the run and nobody has forgotten it."""
        entries = self._place.entries()
        return self._claim in entries and _newest(entries) == self.number

    def write(self, record: dict[str, Any]) -> None:
        """Put the record in place, unless the run was forgotten meanwhile."""
        with self._lock:
            if (self._place / self._claim).exists():
                self._put(record)

    def beat(self, record: dict[str, Any]) -> bool:
        """Put the record anew; return False once there is nothing left to beat for."""
        with self._lock:
            if record["cause"] is not None or not self.holds():
                return False
            self._put(record)
            return True

    def _put(self, record: dict[str, Any]) -> None:
        self._beats += 1
        data = json.dumps({**record, "beat": self._beats}, indent=1, sort_keys=True) + "\n"
        (self._place / f"{self.number}.json").write_bytes(data.encode())


def alive_among(folders: list[RunFolder]) -> set[str]:
    """Return the runs whose newest attempt is seen to live; a dead one takes STALE_SECONDS."""
    watches = {folder: Watch() for folder in folders}
    first: dict[RunFolder, str] = {}
    alive: set[str] = set()
    while watches:
        for folder, watch in list(watches.items()):
            assert isinstance(folder.path, ObjectPath)
            place = folder.path / "attempts"
            entries = place.entries()
            newest = _newest(entries)
            version = _version(entries, newest)
            if not newest or not _lives(place, entries, newest, watch):
                del watches[folder]
            elif version != first.setdefault(folder, version):
                alive.add(folder.run_id)
                del watches[folder]
        if watches:
            time.sleep(poll_seconds())
    return alive


def _newest(entries: dict[str, Entry]) -> int:
    """Return the highest number in a listing of ``attempts/``, of a record or a mere claim."""
    numbers = [name.split(".")[0] for name in entries]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _version(entries: dict[str, Entry], number: int) -> str:
    """Return what changes with each sign of life of an attempt, or of a claim without a record."""
    mine = {name: entry for name, entry in entries.items() if name.split(".")[0] == str(number)}
    record = mine.get(f"{number}.json")
    return record.version if record else " ".join(sorted(mine))


def _lives(place: ObjectPath, entries: dict[str, Entry], number: int, watch: Watch) -> bool:
    names = [name for name in entries if name.split(".")[0] == str(number)]
    name = f"{number}.json" if f"{number}.json" in names else names[0]
    record = read_if_readable(place / name) or {}
    if record.get("cause") is not None:
        return False
    if is_dead_here(attempt_record(number, record)):
        return False
    return watch.sees_life(_version(entries, number))


def claim_of(folder: RunFolder) -> FileClaim | ObjectClaim:
    """Return a claim not yet taken, of the kind that the store's files allow."""
    if isinstance(folder.path, ObjectPath):
        return ObjectClaim(folder)
    return FileClaim(folder)


def _local(path: Place) -> Path:
    assert isinstance(path, Path)
    return path


def poll_seconds() -> float:
    """Return how often a waiting successor looks."""
    return min(POLL_SECONDS, stale_seconds() / BEATS)


def stale_seconds() -> float:
    """Return after how much silence an attempt counts as gone; raise UserError for nonsense."""
    said = os.environ.get(STALE_VARIABLE)
    try:
        seconds = STALE_SECONDS if said is None else float(said)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise UserError(f"{STALE_VARIABLE}={said}: give a number of seconds above 0")
    return seconds


def is_alive(folder: RunFolder, attempt: dict[str, Any]) -> bool:
    """Return whether an attempt still runs: it has not ended, beats, and its process is there.

    The process is asked for on this machine only; of another one the heartbeat is all there is. On
    an object store it is watched, for up to STALE_SECONDS.
    """
    if attempt["cause"] is not None:
        return False
    if isinstance(folder.path, ObjectPath):
        return bool(alive_runs([folder]))
    try:
        beat = _local(folder.attempt_path(attempt["attempt"])).stat().st_mtime
    except FileNotFoundError:
        return False
    if time.time() - beat > stale_seconds():
        return False
    return not is_dead_here(attempt)


def alive_runs(folders: list[RunFolder]) -> set[str]:
    """Return the ids of the runs whose newest attempt is alive; heartbeats are watched together."""
    newest = ((folder, folder.newest_attempt()) for folder in folders)
    open_ones = [(folder, a) for folder, a in newest if a is not None and a["cause"] is None]
    if any(isinstance(folder.path, ObjectPath) for folder, _ in open_ones):
        return alive_among([folder for folder, _ in open_ones])
    return {folder.run_id for folder, attempt in open_ones if is_alive(folder, attempt)}


def is_dead_here(attempt: dict[str, Any]) -> bool:
    """Return whether an attempt ran on this machine and its process is gone."""
    if attempt["node"] != platform.node() or attempt["pid"] is None:
        return False
    try:
        os.kill(attempt["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
