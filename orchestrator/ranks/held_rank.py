"""A rank process as its supervisor holds it: what it said last, how it ended, whether it hangs.

The process answers pings from a thread of its own, and says how long its work has been quiet: one
that does not answer is gone; one that answers and gets on with nothing hangs, in a collective whose
other side is gone, on a GPU that fell off the bus, in a download. Its stacks are kept, then it is
killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import statistics
import tempfile
import time
from collections import deque
from dataclasses import replace
from multiprocessing.connection import Connection

from workers.progress import Progress
from workers.ranks.notice import Cause
from workers.ranks.rank_process import PING, Broken, Job, Pong

PING_SECONDS = 5.0
# A process that does not answer for so long, with a thread of its own to do it, is gone.
SILENCE_SECONDS = 60.0
# Work that has been quiet for so long hangs, or for so many of its median steps; and before its
# first step, where weights may come over a slow network, for so long.
HANGS_SECONDS, HANGS_STEPS = 600.0, 10
HANGS_VARIABLE = "DEPTHSWEEP_HANGS_SECONDS"
LOADING_SECONDS = 3600.0
# How many steps the median is of.
STEPS = 100
# Of the stacks of a process that hangs so much is kept.
STACKS_BYTES = 1_000_000
NOWHERE = Progress(0, 0, None)


class HeldRank:
    """A process that carries out one job after another; to be used by one thread, but for ``stop``
    and ``kill``."""

    def __init__(self, number: int, connection: Connection) -> None:
        self.number = number
        self.latest = NOWHERE
        self.ended: Progress | Broken | None = None
        self._connection = connection
        self._watched = os.pidfd_open(number)  # readable once the process has ended
        self._stacks: tuple[int, str] | None = None  # open here, and its path

    def begin(self, job: Job) -> None:
        """Have the process carry out a job."""
        now = time.monotonic()
        self.latest, self.ended = NOWHERE, None
        self._heard = self._moved = self._pinged = now
        self._seconds: deque[float] = deque(maxlen=STEPS)
        self._stacks = tempfile.mkstemp(prefix="depthsweep-stacks-")
        self._send(replace(job, stacks=self._stacks[1]))

    def listen(self, seconds: float) -> None:
        """Take in what the process says for up to so many seconds, or until it says something."""
        ready, _, _ = select.select([self._connection.fileno(), self._watched], [], [], seconds)
        if self._connection.fileno() in ready:
            while self._connection.poll() and self._hear():
                pass
        elif self._watched in ready:
            self._has_died()
        now = time.monotonic()
        if self.ended is None and now - self._heard > SILENCE_SECONDS:
            self.kill()
            self._end(Broken("lost", f"process {self.number} did not answer for a minute"))
        if self.ended is None and now - self._pinged > PING_SECONDS:
            self._pinged = now
            self._send(PING)

    def stop(self, cause: Cause) -> None:
        """Have the run stop, with a checkpoint, after the step it is in."""
        self._send(cause)

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process, and return once it is gone."""
        self.kill()
        select.select([self._watched], [], [], SILENCE_SECONDS)
        os.close(self._watched)
        self._connection.close()
        self._forget_stacks()

    def _send(self, message: Job | str) -> None:
        with contextlib.suppress(OSError):  # it has ended, as its descriptor says
            self._connection.send(message)

    def _hear(self) -> bool:
        """Take in one message; return False once there will be no more."""
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            self._has_died()
            return False
        self._heard = time.monotonic()
        if self.ended is not None:
            return True
        if isinstance(message, Pong):
            self._look_whether_it_hangs(message.quiet)
        elif isinstance(message, Broken):
            self._end(message)
        else:
            self._gets_on(message)
        return True

    def _gets_on(self, progress: Progress) -> None:
        steps = progress.step - self.latest.step
        if steps > 0:
            now = time.monotonic()
            self._seconds.append((now - self._moved) / steps)
            self._moved = now
        self.latest = progress
        if progress.status:
            self._end(progress)

    def _look_whether_it_hangs(self, quiet: float) -> None:
        limit = hangs_seconds()
        if self._seconds:
            limit = max(limit, HANGS_STEPS * statistics.median(self._seconds))
        elif HANGS_VARIABLE not in os.environ:
            limit = LOADING_SECONDS
        if quiet > limit:
            text = f"process {self.number} made no step for {quiet:.0f} s"
            stacks = self._stacks_now()
            self.kill()
            self._end(Broken("lost", f"{text}\n{stacks}".rstrip()))

    def _stacks_now(self) -> str:
        with contextlib.suppress(ProcessLookupError, OSError):
            os.kill(self.number, signal.SIGUSR1)
            time.sleep(1.0)
            if self._stacks is not None:
                said = os.pread(self._stacks[0], STACKS_BYTES, 0)
                return said.decode("utf-8", errors="replace")
        return ""

    def _has_died(self) -> None:
        if self.ended is None:
            self._end(Broken("lost", f"process {self.number} died"))

    def _end(self, how: Progress | Broken) -> None:
        self.ended = how
        self._forget_stacks()

    def _forget_stacks(self) -> None:
        if self._stacks is not None:
            handle, path = self._stacks
            self._stacks = None
            os.close(handle)
            with contextlib.suppress(FileNotFoundError):  # the process has removed it itself
                os.unlink(path)


def hangs_seconds() -> float:
    """Return for how long work may be quiet at least: ten minutes, or what the environment says."""
    try:
        return float(os.environ.get(HANGS_VARIABLE, HANGS_SECONDS))
    except ValueError:
        return HANGS_SECONDS
