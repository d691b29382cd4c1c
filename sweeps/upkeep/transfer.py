"""Runs of one store brought into another, whatever either lies on: whole, checked, DONE.json last.

A run that has ended comes with its rows, records, logs and attempts, and counts in the new store
from its DONE.json on, which is created there and replaces none. Of one that has not, only its
records and logs come, so that the new store says of it what the old one does; with its weights also
what it would continue from. Whatever is there already and whole is not copied again, so a transfer
that was cut off goes on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError

from sweeps.attempts.living import alive_runs
from sweeps.files.records import put_new
from sweeps.files.trees import Damaged, Seen, copy_file, files_below
from sweeps.files.whole_files import Place, file_checksum, is_local, read_if_readable
from sweeps.reading.digest import digests
from sweeps.reading.tables import Tables
from sweeps.spec import RunSpec, is_measurement
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store

# Runs that are copied side by side: of an object store each file is a request.
AT_ONCE = 8

# What became of a run. brought: it is there now; there: it was already; differs: both stores have a
# result, with other rows, and the new store's stays; alive: somebody is at it; damaged: a file is
# not what its record says; begun: not ended, and its records are there now.
Outcome = Literal["brought", "begun", "there", "differs", "alive", "damaged"]


@dataclass(frozen=True)
class Moved:
    """What became of one run or measurement, in bytes copied, and why where that needs words."""

    work_id: str
    outcome: Outcome
    bytes: int = 0
    why: str = ""


def transfer(
    source: Store, target: Store, work_ids: Collection[str], *, weights: bool
) -> Iterator[Moved]:
    """Bring runs and measurements into a store, and yield what became of each, in order.

    ``weights`` brings kept checkpoints, too. Those of which somebody is at either side are left
    where they are.
    """
    reading = source.reading()
    there = target.reading()
    open_ones = [
        store.work(work_id)
        for work_id in work_ids
        if not (reading.work(work_id).done() and there.work(work_id).done())
        for store, seen in ((source, reading), (target, there))
        if _has_open_attempt(seen.work(work_id))
    ]
    alive = alive_runs(open_ones)
    move = partial(_move, source, reading, target, there, weights)

    def one(work_id: str) -> Moved:
        if work_id in alive:
            return Moved(work_id, "alive")
        try:
            return move(work_id)
        except (Damaged, FileNotFoundError) as error:
            return Moved(work_id, "damaged", 0, " ".join(str(error).split()))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(one, work_ids)


def _has_open_attempt(folder: RunFolder) -> bool:
    newest = folder.newest_attempt()
    return newest is not None and newest["cause"] is None


def _move(
    source: Store, reading: Store, target: Store, there: Store, weights: bool, work_id: str
) -> Moved:
    old, new = source.work(work_id), target.work(work_id)
    done = reading.work(work_id).done()
    theirs = there.work(work_id).done()
    if theirs is not None:
        same = done is None or done == theirs or _same_rows(reading, there, work_id)
        return Moved(work_id, "there" if same else "differs")
    files = files_below(old.path)
    if not files or (done is None and _has_gone_on(old, new)):
        return Moved(work_id, "there")
    copied = _Copy(old.path, new.path, files, files_below(new.path))
    if done is not None:
        for name, entry in done["parts"].items():
            copied.file(name, entry["sha256"])
    if weights:
        _weights(old, copied, done)
    if "run.json" in files:
        copied.record("run.json")
    _attempts(old, new, copied)
    if done is None:
        return Moved(work_id, "begun" if copied.bytes else "there", copied.bytes)
    data = (old.path / "DONE.json").read_bytes()
    if old.done() != done:
        raise Damaged(f"{old.path}: its result was replaced while it was read; pull again")
    if not put_new(new.path / "DONE.json", data) and new.done() != done:
        return Moved(work_id, "differs", copied.bytes)
    return Moved(work_id, "brought", copied.bytes + len(data))


class _Copy:
    """The files of one run on their way, those that are there already left out."""

    def __init__(
        self, old: Place, new: Place, files: dict[str, Seen], there: dict[str, Seen]
    ) -> None:
        self.files = files
        self._there = there
        self._old, self._new = old, new
        self.bytes = 0

    def file(self, name: str, sha256: str | None = None, *, to: str | None = None) -> None:
        """Copy a file of the run, under another name where one is given.

        Raises Damaged where it does not match its checksum, FileNotFoundError where it is missing.
        """
        place = self._new / (to or name)
        if not self._is_there(to or name, self.files.get(name), place, sha256):
            self.bytes += copy_file(self._old / name, place, sha256)

    def record(self, name: str) -> None:
        """Copy a small file, unless just that is there."""
        old, new = self._old / name, self._new / name
        if name not in self._there or old.read_bytes() != new.read_bytes():
            self.bytes += copy_file(old, new)

    def _is_there(self, name: str, wanted: Seen | None, place: Place, sha256: str | None) -> bool:
        there = self._there.get(name)
        if there is None or wanted is None or there.bytes != wanted.bytes:
            return False
        # An object was put whole or not at all; a disk may have lost what it had.
        return sha256 is None or not is_local(place) or file_checksum(place) == sha256


def _weights(old: RunFolder, copied: _Copy, done: dict[str, Any] | None) -> None:
    """Copy the whole checkpoints of a run, their manifests last, and the rows that one of a run
    which has not ended builds upon."""
    for name in sorted(copied.files):
        folder = PurePosixPath(name).parent
        if folder.parts[:1] != ("checkpoints",) or not name.endswith("/manifest.json"):
            continue
        manifest = read_if_readable(old.path / name) or {}
        listed = {f"{folder}/{file}": entry for file, entry in manifest.get("files", {}).items()}
        if done is None:
            listed |= manifest.get("parts", {})
        for file, entry in listed.items():
            copied.file(file, entry["sha256"])
        copied.file(name)


def _has_gone_on(old: RunFolder, new: RunFolder) -> bool:
    """Return whether the new store has attempts at a run that the old one knows nothing of."""
    known = old.attempts()
    return any(record not in known for record in new.attempts())


def _attempts(old: RunFolder, new: RunFolder, copied: _Copy) -> None:
    """Bring the records and logs of a run's attempts, behind those that the new store has of it."""
    there = [_without_number(record) for record in new.attempts()]
    numbers = new.attempt_numbers()
    for record in old.attempts():
        number = record["attempt"]
        if _without_number(record) in there:
            to = numbers[there.index(_without_number(record))]
        else:
            to = max(number, max(numbers, default=0) + 1)
            numbers.append(to)
            there.append(_without_number(record))
        log = f"logs/attempt-{number}.log"
        if log in copied.files:
            copied.file(log, to=f"logs/attempt-{to}.log")
        data = old.attempt_path(number).read_bytes()
        if put_new(new.attempt_path(to), data):
            copied.bytes += len(data)


def _without_number(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "attempt"}


def _same_rows(reading: Store, there: Store, work_id: str) -> bool:
    """Return whether two stores have the same rows of a run, or the same result of a measurement,
    whatever files they lie in."""
    if is_measurement(work_id):
        mine, other = (_result_of(store.work(work_id)) for store in (reading, there))
        return mine == other
    found = []
    for store in (reading, there):
        record = store.work(work_id).record()
        if record is None:
            return False
        try:
            spec = RunSpec.model_validate_json(json.dumps(record["spec"]))
        except ValidationError:
            return False
        found.append(list(digests(Tables(store, [spec], include_running=False))))
    return found[0] == found[1]


def _result_of(folder: RunFolder) -> dict[str, Any]:
    """Return what was measured, without a word on what it was made with."""
    result = (folder.done() or {}).get("result", {})
    return {name: value for name, value in result.items() if name != "made_on"}
