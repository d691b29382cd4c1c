"""An attempt at a run: the claim to be its one writer, and the record of how it went.

The file ``attempts/<n>.json`` is both. It is created exclusively, so a number has one owner, whom
its token names, and the highest number owns the run: before anything of the run is put in place,
the writer asks whether it has been superseded. The record changes with each heartbeat. A successor
waits while it does, takes over when it does not, and so fences a writer that only seemed dead:
workers of a killed driver live on for seconds. On an object store whole PUTs do the same; ``claim``
has both, and ``sweeps.liveness`` says after how much silence an attempt counts as gone.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import threading
import time
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from sweeps.files.whole_files import write_json
from sweeps.liveness.process import identity
from sweeps.liveness.watch import BEATS, stale_seconds
from sweeps.store.claim import Claim
from sweeps.store.run_log import RunLog
from sweeps.store.store import RunFolder


class Superseded(RuntimeError):
    """Another attempt owns the run now; this one must not write any more."""


class _Changed(Exception):
    """A record is not any more what it was when it was judged."""


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
            "token": secrets.token_hex(8),
            "node": platform.node(),
            **identity(),
            "resumed_from": None,
            "cause": None,
            "error": None,
        }

    def __enter__(self) -> Self:
        """Wait out a live predecessor, claim the next number, start the heartbeat."""
        self._claim = Claim(self._folder, self._record)
        self.number = self._claim.take()
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

    def describe(self, **said: Any) -> None:
        """Record what this attempt is made with: see ``records.PROVENANCE``."""
        self._record |= said
        self._write()

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
        self._claim.write()

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            # A store that is away may come back, and the run waits for it: the heart goes on. That
            # it refuses is said where the run writes.
            with contextlib.suppress(OSError):
                if not self._claim.beat():
                    return
                self._log.flush()


class OnlookersAttempt:
    """The attempt of a rank that does not write: the first rank keeps the record."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def resumed_from(self, step: int) -> None:
        """Record nothing."""

    def describe(self, **said: Any) -> None:
        """Record nothing."""

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """Say nothing."""

    def require_ownership(self) -> None:
        """Leave the claim to the first rank."""

    def end(self, cause: str, error: str | None = None) -> None:
        """Record nothing."""


def end_for(
    folder: RunFolder, attempt: dict[str, Any], cause: str, error: str | None = None
) -> bool:
    """Record how an attempt ended, for one whose process cannot any more.

    ``attempt`` is its record as it was judged. Returns whether it was closed: one that has ended by
    itself is left alone, and so is another one that has its number by now.
    """
    number = attempt["attempt"]

    def require_the_same() -> None:
        now, there = folder.attempt(number), number in folder.attempt_numbers()
        if not there or any(now[name] != attempt[name] for name in ("token", "started", "cause")):
            raise _Changed

    if attempt["cause"] is not None:
        return False
    try:
        require_the_same()
        record = {k: value for k, value in folder.attempt(number).items() if k != "attempt"}
        record |= {"ended": _now(), "cause": cause, "error": error}
        write_json(folder.attempt_path(number), record, require_the_same)
    except _Changed:
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
