"""Starts rank processes on this node by its rank server, which this starts where there is none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from sweeps.errors import UserError
from workers.ranks.rank_server import ENVIRONMENT, REQUEST_BYTES

# How long the server may import before it counts as broken; on a cold network disk that is minutes.
IMPORT_SECONDS = 600.0
# How long the processes of a run whose supervisor has died may go on with their checkpoint on a GPU
# that another run was given meanwhile; they end themselves before that.
HOLD_SECONDS = 45.0
POLL_SECONDS = 0.1
# The longest path of a socket, less some.
LONGEST_PATH = 100
# What the environment says of one run's process only.
OF_ONE_RUN = ("CUDA_VISIBLE_DEVICES", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")


class RankStarter:
    """Starts processes for one supervisor; the server is shared by all of a node's with this key.

    ``key`` names what decides the code and the environment that the server has imported, such as
    the job of a cluster. ``forks`` is to be unset where CUDA refuses after a fork.
    """

    def __init__(self, key: str) -> None:
        self.forks = True
        self._path = _socket_path(key)
        self._control: socket.socket | None = None

    def start(self, devices: Sequence[str] = (), alone: bool = True) -> tuple[int, Connection]:
        """Start a rank process; return its number, and the connection that it serves.

        Blocks for the server's imports the first time, and for as long as processes of another run
        hold ``devices`` (GPUs) that are this one's ``alone``. Raises OSError where none can be
        started.
        """
        ours, its = socket.socketpair()
        request = {"fork": self.forks, "devices": list(devices), "alone": alone, "kill": False}
        until = time.monotonic() + HOLD_SECONDS
        with its:
            while True:
                answer = self._ask(request, its)
                if "process" in answer:
                    return answer["process"], Connection(ours.detach())
                request["kill"] = time.monotonic() > until
                time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Say that this needs no more processes; those that it started stay."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def _ask(self, request: dict[str, object], its: socket.socket) -> dict[str, int]:
        data = json.dumps(request).encode()
        with contextlib.suppress(OSError):
            return self._asked(data, its)
        self.close()  # the server is gone: once more with a new one
        return self._asked(data, its)

    def _asked(self, data: bytes, its: socket.socket) -> dict[str, int]:
        if self._control is None:
            self._control = self._connected()
        self._control.settimeout(IMPORT_SECONDS)
        socket.send_fds(self._control, [data], [its.fileno()])
        answer = self._control.recv(REQUEST_BYTES)
        if not answer:
            raise OSError("no rank process could be started: see this node's Ray logs")
        found: dict[str, int] = json.loads(answer)
        return found

    def _connected(self) -> socket.socket:
        control = socket.socket(socket.AF_UNIX)
        started = 0.0
        until = time.monotonic() + IMPORT_SECONDS
        while True:
            try:
                control.connect(self._path)
                return control
            except OSError:
                if time.monotonic() > until:
                    raise
                if time.monotonic() - started > 10.0:
                    started = time.monotonic()
                    _start_server(self._path)
                time.sleep(POLL_SECONDS)


def _start_server(path: str) -> None:
    """Start the server as a grandchild in a session of its own: it must outlive this process."""
    environment = {k: v for k, v in os.environ.items() if k not in OF_ONE_RUN}
    subprocess.run(
        [
            "/bin/sh",
            "-c",
            'exec setsid "$0" "$@" &',
            sys.executable,
            "-m",
            "workers.ranks.rank_server",
            path,
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        env={**environment, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _socket_path(key: str) -> str:
    """Return where the server of a key listens, in a folder that no one else may enter."""
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"depthsweep-{os.getuid()}"
    if len(str(folder / name)) > LONGEST_PATH:
        folder = Path("/tmp") / folder.name
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    there = folder.lstat()  # of a link somebody else may have made
    ours = stat.S_ISDIR(there.st_mode) and there.st_uid == os.getuid()
    if not ours or there.st_mode & 0o077:
        raise UserError(f"{folder}: not a folder of this user's alone; remove it, or set TMPDIR")
    return str(folder / name)
