"""Starts rank processes on this node, by a fork of the rank server or, without it, from nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

from workers.ranks.rank_server import ENVIRONMENT, NUMBER


class RankStarter:
    """Starts one process at a time; ``forks`` is to be unset where CUDA refuses after a fork.

    The server imports what a rank needs once, and ends with this process.
    """

    def __init__(self) -> None:
        self.forks = True
        self._control: socket.socket | None = None

    def warm_up(self) -> None:
        """Have the server begin with its imports."""
        self._server()

    def start(self) -> tuple[int, Connection]:
        """Start a rank process; return its number, and the connection that it serves.

        Blocks for the server's imports the first time. Raises OSError where none can be started.
        """
        ours, its = socket.socketpair()
        with its:
            number = self._start(its)
        return number, Connection(ours.detach())

    def close(self) -> None:
        """End the server, once it has answered; processes that it forked stay."""
        if self._control is not None:
            self._control.close()

    def _start(self, its: socket.socket) -> int:
        if not self.forks:
            return _popen("--alone", its).pid
        try:
            return self._ask_server(its)
        except OSError:  # the server is gone: once more with a new one
            self._control = None
            return self._ask_server(its)

    def _ask_server(self, its: socket.socket) -> int:
        control = self._server()
        socket.send_fds(control, [b"f"], [its.fileno()])
        answer = control.recv(NUMBER.size)
        if not answer:
            raise OSError("no rank process could be started: see this node's Ray logs")
        number: int = NUMBER.unpack(answer)[0]
        return number

    def _server(self) -> socket.socket:
        if self._control is None:
            self._control, its = socket.socketpair()
            with its:
                _popen("", its)
        return self._control


def _popen(option: str, its: socket.socket) -> subprocess.Popen[bytes]:
    number = its.fileno()
    words = [option, str(number)] if option else [str(number)]
    return subprocess.Popen(
        [sys.executable, "-m", "workers.ranks.rank_server", *words],
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
