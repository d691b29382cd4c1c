"""How much of this machine's memory copies of a run's state may take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# The rest is left to whoever else is on the machine, and to the pages of files being written.
SHARE = 0.5
_CGROUP = Path("/sys/fs/cgroup")
# Limit and use, and what of the use is only a copy of files, of control groups of both versions.
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def spare_bytes(ranks: int, memory: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Return the bytes that one of a run's ``ranks`` may take for copies: its part of half of what
    the machine, or the container that this runs in, has left.

    Ranks that a launcher counts by node (LOCAL_WORLD_SIZE) are those of this one.
    """
    left = [_available(memory), *(_left_of(cgroup, *names) for names in _LIMITS)]
    known = [number for number in left if number is not None]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    return int(SHARE * max(0, min(known, default=0)) / max(1, here))


def _available(memory: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in memory.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return None


def _left_of(cgroup: Path, limit: str, used: str, stat: str, files: str) -> int | None:
    """Return what a container has left; None where it has no limit."""
    with suppress(OSError, ValueError):
        most, current = int((cgroup / limit).read_text()), int((cgroup / used).read_text())
        named = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
        return most - current + int(named.get(files, 0))
    return None
