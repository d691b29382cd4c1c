"""Being the one who does something for as long as one shows life, and how others see whether it is.

Whoever wants to be the one creates the next number in a folder of records, ``1.json``, ``2.json``:
exclusively, so a number has one owner, whom the record's ``token`` names. The owner renews the
record again and again, which succeeds only while nobody else has replaced it. A successor watches
the newest record on its own clock. When that has been silent for ``stale_seconds`` it closes it, by
replacing what it saw, and creates the next number. If the owner was not dead after all, one of two
things happens at the server: its heart beats first, and the record that was to be replaced is not
that one any more; or it is closed first, and its next beat fails. Whichever it is, whoever has been
told by the server that it owns a number has been the only one at that moment.

Nothing is judged by comparing clocks, and no number is used twice while its record is there.
"""

from __future__ import annotations

import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from sweeps.files.patience import patiently
from sweeps.files.records import create, look, renew, replace_if, versions
from sweeps.files.whole_files import Place, write_json
from sweeps.liveness.process import identity, is_there
from sweeps.liveness.watch import BEATS, Watch, is_fresh, poll_seconds, stale_seconds

# What a record says of its owner, beside the time of its end and why.
_OWNER: dict[str, type] = {
    "token": str,
    "node": str,
    "pid": int,
    "boot": str,
    "pid_namespace": str,
    "process_started": int,
    "cause": str,
}
Look = Literal["alive", "gone", "unsure"]


@dataclass(frozen=True)
class Sighting:
    """The newest record of a folder as it stands.

    ``record`` is what could be read of it, {} where nothing could; ``owner`` has the fields of
    whoever made it, None for what is not known; ``version`` is what a replacement names, ``sign``
    changes with each sign of life; the last one was made ``by`` a token, at ``made`` by its clock.
    """

    number: int
    record: dict[str, Any]
    version: str
    sign: str
    by: str | None
    made: float | None

    @property
    def owner(self) -> dict[str, Any]:
        return {
            name: value if isinstance(value := self.record.get(name), kind) else None
            for name, kind in _OWNER.items()
        }


def owner() -> dict[str, Any]:
    """Return what a record says of this process, with a token of its own."""
    return {"token": secrets.token_hex(8), "node": platform.node(), **identity()}


def newest(folder: Place, known: Sighting | None = None) -> Sighting | None:
    """Return the record with the highest number; ``known`` where that is it, None for none."""
    there = {
        int(stem): version
        for name, version in versions(folder).items()
        if (stem := name.removesuffix(".json")).isdecimal()
    }
    if not there:
        return None
    number = max(there)
    version = there[number]
    if version and known is not None and (known.number, known.version) == (number, version):
        return known
    seen = look(folder / f"{number}.json", version)
    if seen is None:
        return None
    sign = f"{number} {seen.sign}"
    return Sighting(number, seen.data or {}, seen.version, sign, seen.by, seen.made)


class Vigil:
    """What this process has seen of a folder's newest record since it began to look."""

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        self._watch = Watch()
        self._first: str | None = None
        self.sighting: Sighting | None = None

    def look(self) -> Look:
        """Look once, without waiting; ``unsure`` turns into one of the others if one goes on.

        An owner is gone that has ended, whose process is not there, or that has been silent for as
        long as ``stale_seconds``. It is alive if it has shown life meanwhile, or if its process is
        one of this machine and has shown some just now.
        """
        self.sighting = seen = newest(self._folder, self.sighting)
        if seen is None or seen.owner["cause"] is not None:
            return "gone"
        there = is_there(seen.owner)
        if there is False or not self._watch.sees_life(seen.sign):
            return "gone"
        self._first = self._first or seen.sign
        changed = seen.sign != self._first
        return "alive" if changed or (there and is_fresh(seen.made)) else "unsure"


class Lease:
    """The next number of a folder, from taking it to its end.

    ``record`` is what stands in the number's record: it has the ``token``, is told when the number
    was taken (``started``), and whoever changes it calls ``write``. ``within`` is the folder below
    which others may be made. All methods may be called from any thread.
    """

    def __init__(self, folder: Place, record: dict[str, Any], within: Place | None = None) -> None:
        self._folder = folder
        self._record = record
        self._within = within
        self._lock = threading.Lock()  # no beat overtakes the record of the end
        self._version: str | None = None
        self._tried = 0
        self._pause = stale_seconds() / BEATS

    def take(self, need: Callable[[], bool] = lambda: True) -> int | None:
        """Wait out a live predecessor, take the next number, and return it.

        None as soon as there is no ``need`` any more, which is asked while waiting.
        """
        vigil = Vigil(self._folder)
        while True:
            if patiently(vigil.look, self._folder) != "gone":
                time.sleep(poll_seconds())
                if not need():
                    return None
                continue
            if (
                number := patiently(partial(self._succeed, vigil.sighting), self._folder)
            ) is not None:
                return number

    def _succeed(self, before: Sighting | None) -> int | None:
        """Take the number after one whose owner is gone; None where somebody else was quicker."""
        token = self._record["token"]
        ours = before is not None and before.owner["token"] == before.by == token
        if ours and before is not None and before.owner["cause"] is None:
            # The answer was lost when we created it. Whether it is ours still, the server says.
            number = before.number
            version = renew(self._folder / f"{number}.json", self._record, before.version, token)
        else:
            if before is not None and not closed_as_lost(self._folder, before, token):
                return None  # it lives after all
            number = before.number + 1 if before else 1
            path = self._folder / f"{number}.json"
            if number != self._tried:  # a lost answer to the same try may have been a yes
                self._tried, self._record["started"] = number, now()
            version = create(path, self._record, token, within=self._within)
        if version is None:
            return None
        self._path, self._version = self._folder / f"{number}.json", version
        return number

    @property
    def lost(self) -> bool:
        """Whether the server has said that the record is not ours any more; asks nothing."""
        return self._version is None

    def renew(self) -> bool:
        """Show life; return whether the number is ours at this moment, as the server has it.

        Raises OSError where it does not answer.
        """
        with self._lock:
            if self._record.get("cause") is None:
                self._change(renew)
            return bool(self._version)

    def beat(self, stop: threading.Event, also: Callable[[], object] = lambda: None) -> None:
        """Show life, and do something ``also``, again and again until told to stop, or lost."""
        while not stop.wait(self._pause):
            # A store that is away may come back, and its owner waits for it: the heart goes on.
            # That it refuses is said where the owner writes.
            with suppress(OSError):
                if not self.renew():
                    return
                also()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Show life for as long as the context lasts."""
        stop = threading.Event()
        heart = threading.Thread(target=self.beat, args=(stop,), name="heartbeat", daemon=True)
        heart.start()
        try:
            yield
        finally:
            stop.set()
            heart.join()

    def write(self) -> bool:
        """Put the record in place; return whether it was ours to replace. Raises OSError."""
        with self._lock:
            self._change(replace_if)
            return bool(self._version)

    def end(self) -> bool:
        """Put the record in place as its last word; return whether it was ours to end.

        Raises OSError; it may be called again then.
        """
        with self._lock:
            self._change(partial(replace_if, last=True))
            ended, self._version = self._version is not None, None
            return ended

    def _change(self, put: Callable[[Place, dict[str, Any], str, str], str | None]) -> None:
        if self._version is None:
            return
        token = self._record["token"]
        new = put(self._path, self._record, self._version, token)
        if new is None:
            # The answer to our last change may have been lost: the version is of our making then.
            seen = newest(self._folder)
            if seen is not None and seen.owner["token"] == seen.by == token and seen.version:
                new = put(self._path, self._record, seen.version, token)
        self._version = new


def closed_as_lost(folder: Place, seen: Sighting, by: str) -> bool:
    """Close the record of an owner that is gone; return False where it is another one by now.

    One that has ended is closed already.
    """
    if seen.owner["cause"] is not None:
        return True
    return close(folder, seen, {"ended": now(), "cause": "lost"}, by)


def close(folder: Place, seen: Sighting, end: Mapping[str, Any], by: str) -> bool:
    """Write how an owner ended that cannot say so any more; return whether it still was it."""
    path, record = folder / f"{seen.number}.json", {**seen.record, **end}
    if not seen.version:  # of layout 1, when records had no versions
        write_json(path, record, within=folder)
        return True
    return replace_if(path, record, seen.version, by, last=True) is not None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
