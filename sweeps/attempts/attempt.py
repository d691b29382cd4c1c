"""An attempt at a run: the lease to be its one writer, and the record of how it went.

The record ``attempts/<n>.json`` is both; see ``sweeps.leases.lease``. What an attempt writes is
named after it, so whatever one that was frozen or cut off still puts into the store replaces
nothing of another's. Two things need its being the owner at that moment, and ask the server for it:
to remove, and to close the run.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
import traceback
from types import TracebackType
from typing import Any, Self

from sweeps.attempts.run_log import RunLog
from sweeps.attempts.signed_addresses import without_secrets
from sweeps.files.patience import patiently
from sweeps.leases.lease import Lease, close, newest, now, owner
from sweeps.liveness.watch import stale_seconds
from sweeps.store.records import attempt_record
from sweeps.store.run_folder import RunFolder


class Superseded(RuntimeError):
    """Another attempt owns the run now; this one must not write any more."""


class Attempt:
    """One try at a run, from entering the context to leaving it.

    Leaving without ``end`` records why: cancelled when the caller stopped, failed with the
    traceback otherwise.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._ended = False
        self._stop = threading.Event()
        self._record: dict[str, Any] = {
            "ended": None,
            "seconds": None,
            **owner(),
            "resumed_from": None,
            "cause": None,
            "error": None,
        }

    def __enter__(self) -> Self:
        """Wait out a live predecessor, claim the next number, start the heartbeat."""
        store = self._folder.path.parent.parent
        self._lease = Lease(self._folder.path / "attempts", self._record, within=store)
        number = self._lease.take()
        assert number is not None  # an attempt is needed until it has its turn
        # What it waited for another one is no time of the run's.
        self._began = time.monotonic()
        self.number = number
        self._log = RunLog(self._folder.log_path(self.number))
        self.log = self._log.event
        heart = (self._stop, self._log.flush)
        threading.Thread(target=self._lease.beat, args=heart, name="heartbeat", daemon=True).start()
        self._listening = self._log.listening()
        self._listening.__enter__()
        self.log("attempt started", run=self._folder.run_id, attempt=self.number)
        return self

    @property
    def label(self) -> str:
        """What the names of this attempt's files end in, and no other attempt's ever."""
        return f"a{self.number}-{self._record['token'][:8]}"

    def resumed_from(self, step: int) -> None:
        """Record the step of the checkpoint this attempt continues from; 0 is the beginning."""
        self._record["resumed_from"] = step
        patiently(self._lease.write, self._folder.path)
        self.log("training begins", after_step=step)

    def describe(self, **said: Any) -> None:
        """Record what this attempt is made with: see ``records.PROVENANCE``."""
        self._record |= said
        patiently(self._lease.write, self._folder.path)

    def require_ownership(self) -> None:
        """Raise Superseded unless the run is this attempt's at this moment, as the store has it."""
        if not patiently(self._lease.renew, self._folder.path):
            raise self.superseded()

    def require_not_superseded(self) -> None:
        """Raise Superseded where that is known already; asks nothing of the store."""
        if self._lease.lost:
            raise self.superseded()

    def superseded(self) -> Superseded:
        """Return the error of going on with a run that is another attempt's, or was forgotten."""
        return Superseded(
            f"run {self._folder.run_id}: attempt {self.number} was superseded: it was silent for"
            f" more than {stale_seconds():g} s, and another one took the run up"
        )

    def end(self, cause: str, error: str | None = None) -> None:
        """Record how the attempt ended; the heartbeat stops."""
        self._stop.set()
        seconds = round(time.monotonic() - self._began, 3)
        self._record |= {"ended": now(), "seconds": seconds, "cause": cause, "error": error}
        self._ended = True
        patiently(self._lease.end, self._folder.path)
        self.log("attempt ended", cause=cause, seconds=seconds)
        self._log.flush()
        self._listening.__exit__(None, None, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ended:
            return
        if kind is None or issubclass(kind, (GeneratorExit, KeyboardInterrupt)):
            self.end("cancelled")
        elif self._is_anothers(error):
            self.end("superseded")
            if self._folder.done() is not None or self._is_forgotten():
                self._folder.remove_of(self.label)  # what was put there late is nobody's
            if isinstance(error, FileNotFoundError):
                raise self.superseded() from error
        else:
            said = "".join(traceback.format_exception(kind, error, trace))
            self.end("failed", without_secrets(said))

    def _is_forgotten(self) -> bool:
        """Return whether the number is not this attempt's: all that it had written was removed."""
        return bool(self._folder.attempt(self.number)["token"] != self._record["token"])

    def _is_anothers(self, error: BaseException | None) -> bool:
        """Return whether the run is another attempt's, as far as that is known.

        Where a file has gone the store is asked: a successor that ends removes what it needs not.
        """
        if isinstance(error, FileNotFoundError):
            with contextlib.suppress(OSError):
                self._lease.renew()
        return isinstance(error, Superseded) or self._lease.lost


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

    def end(self, cause: str, error: str | None = None) -> None:
        """Record nothing."""


def end_for(
    folder: RunFolder, attempt: dict[str, Any], cause: str, error: str | None = None
) -> bool:
    """Record how an attempt ended, for one whose process cannot any more.

    ``attempt`` is its record as it was judged. Returns whether it was closed: one that has ended by
    itself is left alone, and so is another one that has its number by now.
    """
    attempts = folder.path / "attempts"
    seen = newest(attempts)
    if attempt["cause"] is not None or seen is None or seen.number != attempt["attempt"]:
        return False
    there = attempt_record(seen.number, seen.record)
    if any(there[name] != attempt[name] for name in ("token", "started", "cause")):
        return False
    end = {"ended": now(), "cause": cause, "error": error}
    return close(attempts, seen, end, secrets.token_hex(8))
