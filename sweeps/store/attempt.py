"""An attempt at a run: the claim to be its one writer, and the record of how it went.

The file ``attempts/<n>.json`` is both. It is created exclusively, so a number has one owner, and
the highest number owns the run: before anything of the run is put in place, the writer asks whether
it has been superseded. The file's modification time is a heartbeat. A successor waits while it is
fresh, takes over when it is not, and so fences a writer that only seemed dead: workers of a killed
driver live on for seconds. On an object store ``object_claim`` does the same with whole PUTs.

An attempt that has been silent for ``stale_seconds`` counts as gone; DEPTHSWEEP_STALE_SECONDS in
the environment says another time than 20 s. All processes at a store must agree on it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sweeps.errors import UserError
from sweeps.files.objects import ObjectPath
from sweeps.files.patience import patiently
from sweeps.files.whole_files import Place, create_json, write_json
from sweeps.store.run_log import RunLog
from sweeps.store.store import RunFolder

if TYPE_CHECKING:
    from sweeps.store.object_claim import ObjectClaim

# Ten missed heartbeats: a busy disk or a long garbage collection is not a death.
STALE_SECONDS = 20.0
BEATS = 10
POLL_SECONDS = 0.5
STALE_VARIABLE = "DEPTHSWEEP_STALE_SECONDS"


class Superseded(RuntimeError):
    """Another attempt owns the run now; this one must not write any more."""


class Attempt:
    """One try at a run, from entering the context to leaving it.

    Leaving without ``end`` records why: cancelled when the caller stopped, failed with the
    traceback otherwise.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._beat_seconds = stale_seconds() / BEATS
        self._began = time.monotonic()
        self._ended = False
        self._stop = threading.Event()
        self._record: dict[str, Any] = {
            "started": _now(),
            "ended": None,
            "seconds": None,
            "node": platform.node(),
            "pid": os.getpid(),
            "resumed_from": None,
            "cause": None,
            "error": None,
        }

    def __enter__(self) -> Self:
        """Wait out a live predecessor, claim the next number, start the heartbeat."""
        self._claim = claim_of(self._folder)
        self.number = self._claim.take(self._record)
        self._folder.fence()
        self._log = RunLog(self._folder.log_path(self.number))
        self.log = self._log.event
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        self._listening = self._log.listening()
        self._listening.__enter__()
        self.log("attempt started", run=self._folder.run_id, attempt=self.number)
        return self

    @property
    def _path(self) -> Any:
        return self._folder.attempt_path(self.number)

    def resumed_from(self, step: int) -> None:
        """Record the step of the checkpoint this attempt continues from; 0 is the beginning."""
        self._record["resumed_from"] = step
        self._write()
        self.log("training begins", after_step=step)

    def require_ownership(self) -> None:
        """Raise Superseded when a later attempt has claimed the run, or the run was forgotten."""
        if not self._claim.holds():
            raise Superseded(f"run {self._folder.run_id}: attempt {self.number} was superseded")

    def end(self, cause: str, error: str | None = None) -> None:
        """Record how the attempt ended; the heartbeat stops."""
        self._stop.set()
        seconds = round(time.monotonic() - self._began, 3)
        self._record |= {"ended": _now(), "seconds": seconds, "cause": cause, "error": error}
        self._ended = True
        self._write()
        self.log("attempt ended", cause=cause, seconds=seconds)
        self._log.flush()
        self._listening.__exit__(None, None, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._ended:
            return
        if kind is None or issubclass(kind, (GeneratorExit, KeyboardInterrupt)):
            self.end("cancelled")
        elif issubclass(kind, Superseded) or not self._claim.holds():
            self.end("superseded")
        else:
            self.end("failed", "".join(traceback.format_exception(kind, error, trace)))

    def _write(self) -> None:
        self._claim.write(self._record)

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            # A store that is away may come back, and the run waits for it: the heart goes on.
            with contextlib.suppress(OSError):
                if not self._claim.beat(self._record):
                    return
                self._log.flush()


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


def claim_of(folder: RunFolder) -> FileClaim | ObjectClaim:
    """Return a claim not yet taken, of the kind that the store's files allow."""
    if isinstance(folder.path, ObjectPath):
        from sweeps.store.object_claim import ObjectClaim

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


def end_for(folder: RunFolder, cause: str, error: str) -> None:
    """Record how the newest attempt ended, for one whose process cannot any more."""
    newest = folder.newest_attempt()
    if newest is not None and newest["cause"] is None:
        record = {name: value for name, value in newest.items() if name != "attempt"}
        record |= {"ended": _now(), "cause": cause, "error": error}
        write_json(folder.attempt_path(newest["attempt"]), record)


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
        from sweeps.store.object_claim import alive_among

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
