"""Starts rank processes on this node by its rank server, which this starts where there is none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sweeps.errors import UserError
from workers.ranks.rank_server import ENVIRONMENT, REQUEST_BYTES

# How long the server may import before it counts as broken; on a cold network disk that is minutes.
IMPORT_SECONDS = 600.0
# How long the processes of a run whose supervisor has died may go on with their checkpoint on a GPU
# that another run was given meanwhile, where they do not say by when they will have ended.
HOLD_SECONDS = 45.0
# So much later than it said a process is not ending by itself any more.
LATE_SECONDS = 5.0
POLL_SECONDS = 0.1
# What Linux says of a socket's other side: its process, user and group.
PEER = struct.Struct("=iii")
# How often a server is asked that is gone before it answers.
TRIES = 5
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
        started, and ImportError where the server cannot import what runs need.
        """
        request = {**self._request, "devices": list(devices), "alone": alone, "start": True}
        until = time.monotonic() + HOLD_SECONDS
        while True:
            answer, ours = self._ask(request)
            if "process" in answer:
                return answer["process"], Connection(ours.detach())
            ours.close()
            said = answer.get("until", 0.0)
            request["kill"] = time.monotonic() > (said + LATE_SECONDS if said else until)
            time.sleep(POLL_SECONDS)

    def wait(self) -> None:
        """Return once the server has imported what runs need, and starts them at once; raises as
        ``start`` does."""
        try:
            _, ours = self._ask(self._request)
            ours.close()
        finally:
            self.close()

    @property
    def _request(self) -> dict[str, object]:
        return {"fork": self.forks, "devices": [], "alone": False, "start": False, "kill": False}

    def close(self) -> None:
        """Say that this needs no more processes; those that it started stay."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def _ask(self, request: dict[str, object]) -> tuple[dict[str, Any], socket.socket]:
        """Return the server's answer, and this side of the connection that it was sent."""
        for _ in range(TRIES):
            try:
                return self._asked(request)
            except TimeoutError:
                self._end_server()
                raise
            except OSError as error:
                # The server is gone, or about to be: once more with a new one.
                self.close()
                found = error
                time.sleep(POLL_SECONDS)
        raise found

    def _end_server(self) -> None:
        """Kill a server that answers nobody, as one that was stopped; the ranks it made stay."""
        if self._control is not None:
            size = PEER.size
            said = self._control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            with contextlib.suppress(ProcessLookupError):
                os.kill(PEER.unpack(said)[0], signal.SIGKILL)
        self.close()

    def _asked(self, request: dict[str, object]) -> tuple[dict[str, Any], socket.socket]:
        if self._control is None:
            self._control = self._connected()
        self._control.settimeout(IMPORT_SECONDS)
        # A pair for each try: a server that died before it answered may have started a process.
        ours, its = socket.socketpair()
        try:
            with its:
                socket.send_fds(self._control, [json.dumps(request).encode()], [its.fileno()])
                answer = self._control.recv(REQUEST_BYTES)
            if not answer:
                raise OSError("no rank process could be started: see this node's Ray logs")
        except OSError:
            ours.close()
            raise
        found: dict[str, Any] = json.loads(answer)
        if "wrong" in found:
            # Let it go: what it lacks may be there by the next time, which another one finds.
            ours.close()
            self.close()
            raise ImportError(found["wrong"])
        return found, ours

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
