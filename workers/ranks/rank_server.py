"""Makes rank processes by forking one that has imported torch and transformers: a node's zygote.

``python -m workers.ranks.rank_server PATH`` listens on the socket PATH, imports, then answers each
request with a new process. So each run gets a fresh process for the price of a fork (2 to 9 ms),
not of seconds of imports. Whoever needs it first starts it, in a session of its own, since a Ray
worker kills its children when it exits; the next ones find it by its path; it ends by itself once
it has had neither processes nor callers for IDLE_SECONDS.

A request is a line of JSON with one file descriptor, the connection that the process serves:
``start`` (false asks only for the answer, which comes when all is imported), ``fork`` (false has it
started from nothing, where CUDA refuses after a fork), ``devices`` (its GPUs), ``alone`` (whether
they are the run's alone) and ``kill`` (end whoever still holds them). The answer is a line of JSON:
the ``process``, or the processes that still ``hold`` the devices, and ``until`` when: those of a
run whose supervisor has died may take a while for their checkpoint, and the run that was given
their GPU must not meet them there; or ``wrong``, why what runs need cannot be imported here.

The fork server of ``multiprocessing`` would have each process import the main module of its parent,
which in a Ray actor is Ray's own worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from workers.ranks.lasting_imports import lasting_imports
from workers.ranks.rank_process import DEADLINE, end_process, serve

IMPORTED = ("torch", "transformers", "workers.rank_run")
# Where it is installed, pyarrow imports it for the first rows of a process: 0.3 s of each run.
IMPORTED_IF_THERE = ("pandas",)
# A parent that has asked CUDA how many GPUs there are cannot be forked; this has torch ask NVML.
ENVIRONMENT = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
IDLE_SECONDS = 60.0
# So long one stays that could only say what it cannot import: that may be mended meanwhile.
BRIEF_SECONDS = 2.0
REQUEST_BYTES = 65_536
# Of an error that is pages long (transformers quotes others) so much is told, in one line.
WRONG_CHARACTERS = 400


class RankServer:
    """Answers requests until it has been idle for ``idle`` seconds; ``lock`` is what keeps others
    from the path, and no process that it starts; ``wrong`` is why it can start none, if so: then
    no caller keeps it longer."""

    def __init__(
        self,
        listening: socket.socket,
        lock: int,
        idle: float = IDLE_SECONDS,
        wrong: str | None = None,
    ) -> None:
        self._listening = listening
        self._lock = lock
        self._idle = idle
        self._wrong = wrong
        self._ready = selectors.DefaultSelector()
        self._ready.register(listening, selectors.EVENT_READ)
        # Of each living process: a descriptor that is readable once it has ended, another in which
        # it leaves its deadline, and its devices.
        self._processes: dict[int, tuple[int, int, frozenset[str]]] = {}
        self._callers = 0
        self._raylet = _raylet()

    def answer(self) -> None:
        """Serve callers until nobody has needed this for long, or its node is no more."""
        used = time.monotonic()
        while time.monotonic() - used < self._idle:
            if not self._processes and self._raylet_has_gone():
                return
            for key, _ in self._ready.select(timeout=1.0):
                if key.fileobj is self._listening:
                    self._welcome()
                elif isinstance(key.fileobj, socket.socket):
                    self._answer(key.fileobj)
                else:
                    self._forget(key.data)
            if self._wrong is None and (self._processes or self._callers):
                used = time.monotonic()

    def _raylet_has_gone(self) -> bool:
        return self._raylet is not None and bool(select.select([self._raylet], [], [], 0)[0])

    def _welcome(self) -> None:
        caller, _ = self._listening.accept()
        self._ready.register(caller, selectors.EVENT_READ)
        self._callers += 1

    def _answer(self, caller: socket.socket) -> None:
        asked, descriptors = b"", list[int]()
        with contextlib.suppress(OSError):
            asked, descriptors, _, _ = socket.recv_fds(caller, REQUEST_BYTES, 1)
        if not asked:
            self._ready.unregister(caller)
            caller.close()
            self._callers -= 1
            return
        request = json.loads(asked)
        devices = frozenset(request["devices"])
        holding = [n for n, (*_, held) in self._processes.items() if held & devices]
        holding = holding if request["alone"] else []
        reply: dict[str, Any] = {"hold": holding, "until": self._ended_by(holding)}
        if holding and request["kill"]:
            for number in holding:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        if self._wrong is not None:
            reply = {"wrong": self._wrong}
        elif request["start"] and not holding:
            reply = {"process": self._start(descriptors[0], devices, request["fork"])}
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            caller.sendall(json.dumps(reply).encode() + b"\n")

    def _ended_by(self, processes: list[int]) -> float:
        """Return by when the last of those will have ended that end by themselves; 0 for none."""
        said = [os.pread(self._processes[n][1], DEADLINE.size, 0) for n in processes]
        return max((DEADLINE.unpack(one)[0] for one in said if one), default=0.0)

    def _start(self, connection: int, devices: frozenset[str], fork: bool) -> int:
        deadline = os.memfd_create("deadline")
        if fork:
            process = os.fork()
            if not process:
                self._become_rank(connection, deadline)
        else:
            command = [sys.executable, "-m", "workers.ranks.rank_server", "--alone"]
            process = subprocess.Popen(
                [*command, str(connection), str(deadline)],
                pass_fds=[connection, deadline],
                stdin=subprocess.DEVNULL,
            ).pid
        ended = os.pidfd_open(process)
        self._processes[process] = (ended, deadline, devices)
        self._ready.register(ended, selectors.EVENT_READ, process)
        return process

    def _become_rank(self, connection: int, deadline: int) -> None:
        """Serve the connection in a process that has just been forked, and end it."""
        for key in list(self._ready.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif isinstance(key.fileobj, int):
                os.close(key.fileobj)
        self._ready.close()
        for _, others, _ in self._processes.values():
            os.close(others)
        os.close(self._lock)
        if self._raylet is not None:
            os.close(self._raylet)
        serve(Connection(connection), deadline)
        end_process()

    def _forget(self, process: int) -> None:
        ended, deadline, _ = self._processes.pop(process)
        self._ready.unregister(ended)
        os.close(ended)
        os.close(deadline)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def _raylet() -> int | None:
    """Return a descriptor that is readable once the node of this server has ended, where Ray has
    said which that is."""
    try:
        return os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))
    except (KeyError, ValueError, OSError):
        return None


def listen(path: str) -> tuple[socket.socket, int] | None:
    """Return a socket that listens at ``path``, for this user alone, and the lock that keeps others
    from it; None where another process has it."""
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held for as long as this process lives
    except OSError:
        os.close(lock)
        return None
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    os.chmod(path, 0o600)
    listening.listen(256)
    return listening, lock


def _import() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    for name in IMPORTED_IF_THERE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main() -> None:
    if sys.argv[1] == "--alone":
        serve(Connection(int(sys.argv[2])), int(sys.argv[3]))
        end_process()
    taken = listen(sys.argv[1])
    if taken is None:
        end_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with lasting_imports():
            _import()
    except (Exception, SystemExit) as error:
        wrong = " ".join(f"{type(error).__name__}: {error}".split())[:WRONG_CHARACTERS]
        RankServer(*taken, idle=BRIEF_SECONDS, wrong=wrong).answer()
    else:
        RankServer(*taken).answer()
    for left in (sys.argv[1], sys.argv[1] + ".lock"):
        with contextlib.suppress(OSError):
            os.unlink(left)
    end_process()


if __name__ == "__main__":
    main()
