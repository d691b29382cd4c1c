"""Which process a record means, and whether it is there: asked only where that can be known.

A process number says nothing by itself. Containers count theirs alike and share their host's name,
numbers are given anew, and machines are called alike. So a record also says since when the machine
has been up (its boot id), in which pid namespace the number counts, and when the process started.
Where all of it agrees with what this process sees of itself, the number is the same process or
none. Without /proc, or with one that shows another namespace, nothing is said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What a process is known by beside its number, in a record.
IDENTITY = ("boot", "pid_namespace", "process_started")

# The last word of a process is still to be fetched: it does nothing any more.
_ENDED = ("Z", "X")


def identity(pid: int | None = None) -> dict[str, Any]:
    """Return what a record says of a process: ``pid`` and IDENTITY, None for what is unknown.

    Of this one by default, asked anew by each: a fork has another number and another start.
    ``process_started`` is in clock ticks since the machine came up. Seconds since 1970, as psutil
    has it, change with the clock: the kernel counts them from a boot that moves along with it.
    """
    pid = pid or os.getpid()
    boot, namespace = _whereabouts() or (None, None)
    stat = _stat(pid) if boot else None
    values = (boot, namespace, stat[1]) if stat else (None, None, None)
    return {"pid": pid, **dict(zip(IDENTITY, values, strict=True))}


def is_there(record: Mapping[str, Any]) -> bool | None:
    """Return whether the process of a record is there, None where this process cannot know.

    That it is there does not say that it still does what the record is about.
    """
    pid, (boot, namespace, started) = record.get("pid"), (record.get(name) for name in IDENTITY)
    if not pid or pid < 1 or started is None or (boot, namespace) != _whereabouts():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    except OverflowError:
        return None
    stat = _stat(pid)
    if stat is None:  # hidden from this user, or gone this moment
        return None
    state, since = stat
    return since == started and state not in _ENDED


def _whereabouts() -> tuple[str, str] | None:
    """Return boot id and pid namespace of this process, None where /proc does not tell."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None  # a /proc of another namespace: its numbers are not ours
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        return None


def _stat(pid: int) -> tuple[str, int] | None:
    """Return state and start of a process of this namespace, None where that cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
        fields = text.rpartition(b")")[2].split()  # the name before it may hold anything
        return fields[0].decode("ascii"), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
