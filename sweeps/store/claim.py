"""The claim to be a run's one writer, on files and on objects, and how others see whether it lives.

A claim is a number and a random token. Whoever has the highest number of a run owns it; the token
says whose a number is, since a run that was forgotten is counted from 1 again.

In a folder a number is claimed by creating ``attempts/<n>.json`` exclusively, as a hard link, and a
heartbeat sets its modification time.

On an object store every claimant puts ``attempts/<n>.<token>.claim``, then lists. Only whose second
listing is the first one plus its own claim has won the number; any other withdraws and tries again
after a random pause. Of two at once the one that puts last sees the other, so two never win. Claims
stay for as long as the run does: a claimant that slept meanwhile finds them. The winner alone
writes ``attempts/<n>.json``, and writing it anew is its heartbeat.

Everything else is the same on both: a successor watches whether the record changes (``Vigil``), and
asks for the process only where ``is_there`` knows which one is meant.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from sweeps.files.objects import Entry, ObjectPath
from sweeps.files.patience import patiently
from sweeps.files.whole_files import create_json, read_if_readable, unless_stale, write_json
from sweeps.liveness.process import IDENTITY, is_there
from sweeps.liveness.watch import (
    NOTICE_SECONDS,
    Watch,
    is_fresh,
    poll_seconds,
    tell,
)
from sweeps.store.records import attempt_record
from sweeps.store.store import RunFolder

# The longest a claimant that met another one pauses, in seconds.
LONGEST_PAUSE = 4.0
# How many runs are looked at side by side: a listing of an object store takes its time.
LOOKS_AT_ONCE = 16


@dataclass(frozen=True)
class Sighting:
    """The newest attempt of a run as it stands.

    ``version`` changes with each sign of its life; ``beat`` is when the last one was made, by the
    clock of whoever made it.
    """

    attempt: dict[str, Any]
    version: str
    beat: float | None


class _Attempts(Protocol):
    """What a claim needs of the attempts of one run, on whatever the store lies."""

    def newest(self, known: Sighting | None) -> Sighting | None:
        """Return the newest attempt, ``known`` where that is it still; None where there is none."""

    def create(self, number: int, record: dict[str, Any]) -> bool:
        """Claim a number that was not there at the last ``newest``; return whether it is ours."""

    def holds(self, number: int, token: str) -> bool:
        """Return whether the number is the token's, and the newest."""

    def write(self, number: int, record: dict[str, Any]) -> None:
        """Put the record of a number in place, unless it is another's or was forgotten."""

    def beat(self, number: int, record: dict[str, Any]) -> None:
        """Show life."""


class _FileAttempts:
    """The attempts of a run in a folder."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def _path(self, number: int) -> Path:
        path = self._folder.attempt_path(number)
        assert isinstance(path, Path)
        return path

    def newest(self, known: Sighting | None) -> Sighting | None:
        numbers = self._folder.attempt_numbers()
        if not numbers:
            return None
        try:
            stat, data = unless_stale(partial(_opened, self._path(numbers[-1])))
        except FileNotFoundError:
            return None
        version = f"{numbers[-1]} {stat.st_mtime_ns} {stat.st_size}"
        if known is not None and known.version == version:
            return known
        record = None
        with suppress(ValueError):
            record = json.loads(data)
        return Sighting(attempt_record(numbers[-1], record), version, stat.st_mtime)

    def create(self, number: int, record: dict[str, Any]) -> bool:
        path = self._path(number)
        if patiently(partial(create_json, path, record), path):
            return True
        # Over a network the answer to our own link may have been lost.
        return bool((read_if_readable(path) or {}).get("token") == record["token"])

    def holds(self, number: int, token: str) -> bool:
        return self._is_of(number, token) and not self._path(number + 1).exists()

    def _is_of(self, number: int, token: str) -> bool:
        """Return whether a number is a token's. A record that is damaged says nothing else."""
        record = read_if_readable(self._path(number))
        if record is None:
            return self._path(number).exists()
        return bool(record.get("token") == token)

    def write(self, number: int, record: dict[str, Any]) -> None:
        path = self._path(number)

        def still_ours() -> None:
            if not self._is_of(number, record["token"]):
                raise FileNotFoundError(path)

        with suppress(FileNotFoundError):
            patiently(still_ours, path)  # a folder that was forgotten is not made anew
            patiently(partial(write_json, path, record, still_ours), path)

    def beat(self, number: int, record: dict[str, Any]) -> None:
        del record
        now = time.time_ns()  # our clock and not the server's: see ``is_fresh``
        with suppress(FileNotFoundError):
            os.utime(self._path(number), ns=(now, now))


def _opened(path: Path) -> tuple[os.stat_result, bytes]:
    # Of a file that is opened just now a network file system tells what the server knows.
    with path.open("rb") as file:
        return os.fstat(file.fileno()), file.read()


class _ObjectAttempts:
    """The attempts of a run on an object store."""

    def __init__(self, place: ObjectPath) -> None:
        self._place = place
        self._lock = threading.Lock()  # no beat overtakes the record of the end
        self._listed: dict[str, Entry] = {}
        self._beats = 0

    def newest(self, known: Sighting | None) -> Sighting | None:
        self._listed = entries = self._place.entries()
        number = _newest(entries)
        if not number:
            return None
        mine = sorted(name for name in entries if name.split(".")[0] == str(number))
        name = f"{number}.json" if f"{number}.json" in mine else mine[0]
        # A claim without a record does not beat: its owner is about to write, or has died.
        version = f"{name} {entries[name].version}" if name.endswith(".json") else " ".join(mine)
        if known is not None and known.version == version:
            return known
        record = read_if_readable(self._place / name) or {}
        return Sighting(attempt_record(number, record), version, _number(record.get("beaten")))

    def create(self, number: int, record: dict[str, Any]) -> bool:
        claim = _claim(number, record["token"])
        owner = {name: record[name] for name in ("node", "pid", *IDENTITY)}
        (self._place / claim).write_bytes(json.dumps(owner).encode())
        if set(self._place.entries()) == {*self._listed, claim}:
            self.write(number, record)
            return True
        (self._place / claim).unlink()
        return False

    def holds(self, number: int, token: str) -> bool:
        entries = self._place.entries()
        return _claim(number, token) in entries and _newest(entries) == number

    def write(self, number: int, record: dict[str, Any]) -> None:
        with self._lock:
            if (self._place / _claim(number, record["token"])).exists():
                self._put(number, record)

    def beat(self, number: int, record: dict[str, Any]) -> None:
        with self._lock:
            if record["cause"] is None:
                self._put(number, record)

    def _put(self, number: int, record: dict[str, Any]) -> None:
        self._beats += 1
        said = {**record, "beat": self._beats, "beaten": time.time()}
        data = json.dumps(said, indent=1, sort_keys=True) + "\n"
        (self._place / f"{number}.json").write_bytes(data.encode())


def _newest(entries: dict[str, Entry]) -> int:
    """Return the highest number in a listing of ``attempts/``, of a record or a mere claim."""
    numbers = [name.split(".")[0] for name in entries]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _claim(number: int, token: str) -> str:
    return f"{number}.{token}.claim"


def _number(value: Any) -> float | None:
    return value if isinstance(value, float) else None


def _attempts_of(folder: RunFolder) -> _Attempts:
    if isinstance(folder.path, ObjectPath):
        return _ObjectAttempts(folder.path / "attempts")
    return _FileAttempts(folder)


class Vigil:
    """What this process has seen of a run's newest attempt since it began to look."""

    def __init__(self, folder: RunFolder) -> None:
        self.attempts = _attempts_of(folder)
        self._watch = Watch()
        self._first: str | None = None
        self.sighting: Sighting | None = None

    def look(self) -> Literal["alive", "gone", "unsure"]:
        """Look once, without waiting; ``unsure`` turns into one of the others if one goes on.

        An attempt is gone that has ended, whose process is not there, or that has been silent for
        as long as ``stale_seconds``. It is alive if it has changed, or if its process is one of
        this machine and has beaten just now.
        """
        self.sighting = seen = self.attempts.newest(self.sighting)
        if seen is None or seen.attempt["cause"] is not None:
            return "gone"
        there = is_there(seen.attempt)
        if there is False or not self._watch.sees_life(seen.version):
            return "gone"
        self._first = self._first or seen.version
        changed = seen.version != self._first
        return "alive" if changed or (there and is_fresh(seen.beat)) else "unsure"


class Claim:
    """The claim of the next number of a run, from taking it to its last heartbeat.

    ``record`` is what stands in ``attempts/<n>.json``: it has the ``token``, and whoever changes it
    calls ``write``.
    """

    def __init__(self, folder: RunFolder, record: dict[str, Any]) -> None:
        self._vigil = Vigil(folder)
        self._attempts = self._vigil.attempts
        self._path = folder.path
        self._record = record

    def take(self) -> int:
        """Wait out a live predecessor, claim the next number, and return it."""
        pause = poll_seconds()
        while True:
            if patiently(self._vigil.look, self._path) != "gone":
                time.sleep(poll_seconds())
                continue
            before = self._vigil.sighting
            self.number: int = before.attempt["attempt"] + 1 if before else 1
            if self._attempts.create(self.number, self._record):
                return self.number
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def holds(self) -> bool:
        """Return whether no later attempt has claimed the run and nobody has forgotten it."""
        return self._attempts.holds(self.number, self._record["token"])

    def write(self) -> None:
        """Put the record in place, unless the run was forgotten meanwhile."""
        self._attempts.write(self.number, self._record)

    def beat(self) -> bool:
        """Show life; return False once there is nothing left to beat for."""
        if self._record["cause"] is not None or not self.holds():
            return False
        self._attempts.beat(self.number, self._record)
        return True


def alive_runs(folders: Sequence[RunFolder]) -> set[str]:
    """Return the ids of the runs and measurements whose newest attempt is alive.

    All are watched together: it takes no time where processes of this machine are asked for, one
    heartbeat for an attempt that lives elsewhere, and ``stale_seconds`` if one is silent.
    """
    vigils = {folder: Vigil(folder) for folder in folders}
    alive: set[str] = set()
    began, told = time.monotonic(), False
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        while vigils:
            looks = pool.map(Vigil.look, vigils.values())
            seen = dict(zip(vigils, looks, strict=True))
            alive |= {folder.run_id for folder, look in seen.items() if look == "alive"}
            vigils = {f: vigil for f, vigil in vigils.items() if seen[f] == "unsure"}
            if vigils:
                if not told and time.monotonic() - began > NOTICE_SECONDS:
                    tell(len(vigils))
                    told = True
                time.sleep(poll_seconds())
    return alive


def is_dead_here(attempt: dict[str, Any]) -> bool:
    """Return whether an attempt's process is one of this machine, boot and namespace, and is gone.

    False also where this process cannot know; see ``is_there``.
    """
    return is_there(attempt) is False
