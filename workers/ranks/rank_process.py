"""The body of a rank process: it carries out one run after another, as its connection asks.

In over the connection come a ``Job``, a cause to stop, or ``PING``; out go how far the run is, at
last with a status or as a ``Broken``, and a ``Pong``. A process whose connection closes checkpoints
the run it is in and ends: whoever started it is gone. SIGUSR1 has it write the stacks of its
threads to the file that ``Job.stacks`` names, whatever they are stuck in.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Literal, NoReturn

from sweeps.attempts.attempt import Superseded
from sweeps.errors import UserError
from sweeps.files.patience import StoreUnavailable
from workers.progress import PREPARATION, PULSE, Progress, Work
from workers.ranks.notice import CAUSES, Notice
from workers.ranks.peers import PEERS

PING = "ping"
# What a deadline is on its way to whoever waits for it.
DEADLINE = struct.Struct("=d")
# How often a run that goes on says so.
REPORT_SECONDS = 0.2

What = Literal["mistake", "store", "superseded", "memory", "fork", "port", "lost", "error"]


class CudaAfterFork(RuntimeError):
    """CUDA does not start in a forked process here: something had touched it before the fork."""


@dataclass(frozen=True)
class Job:
    """One rank of one run: its RunSpec as JSON, the store's location, and its environment.

    ``body`` names the generator of progress that carries it out, as ``module:function``; it is
    called with the job and a notice. ``details`` are for a body that needs other things.
    ``stacks`` is a file of this node for the stacks of a run that hangs; it is removed once open.
    """

    spec: str
    store: str
    threads: int
    environment: dict[str, str] = field(default_factory=dict)
    body: str = "workers.rank_run:train_rank"
    details: dict[str, Any] = field(default_factory=dict)
    stacks: str = ""


@dataclass(frozen=True)
class Pong:
    """An answer to ``PING``: seconds since the run last got on, by ``workers.progress.PULSE``."""

    quiet: float


@dataclass(frozen=True)
class Broken:
    """A run that ended with an error: of which kind, and its message on one line."""

    what: What
    text: str

    @classmethod
    def by(cls, error: BaseException) -> Broken:
        kinds: list[tuple[type[BaseException], What]] = [
            (UserError, "mistake"),
            (StoreUnavailable, "store"),
            (Superseded, "superseded"),
            (CudaAfterFork, "fork"),
        ]
        what: What = next((name for kind, name in kinds if isinstance(error, kind)), "error")
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if what == "error" and is_out_of_memory(text):
            what = "memory"
        elif what == "error" and any(said in text for said in PORT_IS_TAKEN):
            what = "port"
        return cls(what, text)


# What the libraries of a GPU say when its memory is all taken, beside torch's own error.
OUT_OF_MEMORY = (
    "OutOfMemoryError",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "cudaErrorMemoryAllocation",
    "Cuda failure 'out of memory'",
    "failed to allocate pinned memory",
)
PORT_IS_TAKEN = ("EADDRINUSE", "address already in use", "Address already in use")


def is_out_of_memory(text: str) -> bool:
    """Return whether an error's type and message say that a GPU's memory (or pinned memory) did not
    suffice: by torch, cuBLAS, cuDNN, NCCL or the CUDA runtime."""
    return any(said.lower() in text.lower() for said in OUT_OF_MEMORY)


class _Talk:
    """The process's side of the connection; two threads speak."""

    def __init__(self, connection: Connection, deadline: int | None) -> None:
        self._connection = connection
        self._deadline = deadline
        self._lock = threading.Lock()
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.notice = Notice()
        self._alone = False

    def say(self, message: Progress | Broken | Pong) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                self._orphaned()

    def listen(self) -> None:
        """Take what comes in until the connection closes."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self._orphaned()
                return
            if isinstance(message, Job):
                self.notice = Notice()
                self.jobs.put(message)
            elif message in CAUSES:
                self.notice.give(message)
            else:
                self.say(Pong(PULSE.quiet()))

    def _orphaned(self) -> None:
        if self._alone:
            return
        self._alone = True
        self.notice.give("preempted")
        self.jobs.put(None)
        threading.Thread(target=self._end_in_time, name="end in time", daemon=True).start()

    def _end_in_time(self) -> None:
        """End the process of a run that has had as long for its checkpoint as it needs."""
        began = now = time.monotonic()
        while now - began < self.notice.seconds:
            if self._deadline is not None:
                os.pwrite(self._deadline, DEADLINE.pack(began + self.notice.seconds), 0)
            time.sleep(REPORT_SECONDS)
            now = time.monotonic()
        os._exit(1)


def serve(connection: Connection, deadline: int | None = None) -> None:
    """Carry out jobs until the connection closes. To be called in the main thread.

    ``deadline`` is a descriptor in which a process whose starter is gone says by when it will have
    ended, in seconds of the node's monotonic clock: whoever waits for its GPU lets it.
    SIGTERM stops a run with a checkpoint, since the machine is taken away; SIGINT is left to
    whoever started the sweep.
    """
    talk = _Talk(connection, deadline)
    signal.signal(signal.SIGTERM, lambda *_: talk.notice.give("preempted"))
    # A Ray whose own processes are to outlast the notice is started with it blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=talk.listen, name="listen", daemon=True).start()
    while (job := talk.jobs.get()) is not None:
        _carry_out(job, talk)


def end_process(code: int = 0) -> NoReturn:
    """End this process at once, once what it printed is out; for one that has done its work.

    What a run leaves behind, threads and libraries, has no say in it: an interpreter that
    finalizes while a thread of torch or gloo waits for it is aborted now and then ("terminate
    called without an active exception"), and a run that had finished would count as lost.
    """
    PEERS.leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _carry_out(job: Job, talk: _Talk) -> None:
    os.environ.update(job.environment)
    _leave_stacks_in(job.stacks)
    told = float("-inf")
    progress = None

    def doing(work: Work) -> None:
        before = progress or Progress(0, 0, None)
        talk.say(replace(before, doing=None if work.ended else str(work)))

    def lost(line: str) -> None:
        talk.say(Broken("lost", line))

    PULSE.beat()
    try:
        with PREPARATION.heard_by(doing), PEERS.told(lost):
            for progress in _body(job.body)(job, talk.notice):
                PULSE.beat()
                now = time.monotonic()
                if progress.status or now - told > REPORT_SECONDS:
                    talk.say(progress)
                    told = now
        if progress is None or progress.status is None:
            raise RuntimeError("the run ended without a result")
    except Exception as error:
        talk.say(Broken.by(error))


def _leave_stacks_in(path: str) -> None:
    if path:
        with contextlib.suppress(OSError):
            # Kept open, since the handler may run at any time: a run a process, or a few.
            faulthandler.register(signal.SIGUSR1, file=open(path, "w"))  # noqa: SIM115
            os.unlink(path)  # whoever gave it has it open, and may be killed


def _body(name: str) -> Callable[[Job, Notice], Iterator[Progress]]:
    module, _, function = name.partition(":")
    body: Callable[[Job, Notice], Iterator[Progress]] = getattr(
        importlib.import_module(module), function
    )
    return body
