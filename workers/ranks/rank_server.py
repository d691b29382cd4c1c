"""Makes rank processes by forking one that has imported torch and transformers.

``python -m workers.ranks.rank_server CONTROL`` imports, then for each socket it is sent over the
file descriptor CONTROL forks a process that serves it, and answers with its number. So each run
gets a fresh process for the price of a fork, not of seconds of imports. ``--alone SOCKET`` serves
one socket without a fork, for a machine where CUDA does not start after one.

The fork server of ``multiprocessing`` would have each process import the main module of its parent,
which in a Ray actor is Ray's own worker.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import struct
import sys
from multiprocessing.connection import Connection

from workers.ranks.rank_process import end_process, serve

IMPORTED = ("torch", "transformers", "workers.rank_run")
# A parent that has asked CUDA how many GPUs there are cannot be forked; this has torch ask NVML.
ENVIRONMENT = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
NUMBER = struct.Struct("=i")


def main() -> None:
    if sys.argv[1] == "--alone":
        serve(Connection(int(sys.argv[2])))
    else:
        _answer(socket.socket(fileno=int(sys.argv[1])))
    end_process()


def _answer(control: socket.socket) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are reaped by the system
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        asked, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not asked:
            return
        process = os.fork()
        if not process:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            serve(Connection(descriptors[0]))
            return
        os.close(descriptors[0])
        control.sendall(NUMBER.pack(process))


if __name__ == "__main__":
    main()
