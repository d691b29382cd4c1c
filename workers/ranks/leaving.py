"""The last minutes of a machine: its ranks are told to checkpoint, and waited for.

    python -m workers.ranks.leaving SECONDS

For whatever ends a machine without telling the ranks: Kubernetes runs it before it ends a pod
(`preStop`), since its SIGTERM reaches the container's first process alone, which leaves at once and
takes all others along. Of this user's processes on this machine, those that it may see.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.5
MODULE = b"workers.ranks.rank_server"


def rank_processes(proc: Path = Path("/proc")) -> list[int]:
    """Return the processes of runs here by number, the one that forks them among them."""
    found = []
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if MODULE in words and folder.stat().st_uid == os.getuid():
                found.append(int(folder.name))
    return sorted(found)


def leave(seconds: float) -> int:
    """Tell all ranks here, also those that are started meanwhile, and wait until there are none;
    return how many are left after some seconds."""
    until, told = time.monotonic() + seconds, set[int]()
    while (left := rank_processes()) and time.monotonic() < until:
        for number in set(left) - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM)
        told.update(left)
        time.sleep(POLL_SECONDS)
    return len(left)


if __name__ == "__main__":
    sys.exit(1 if leave(float(sys.argv[1])) else 0)
