"""CPU seconds of this process and all that descend from it, also of those that have ended."""

from __future__ import annotations

import os
import threading
from pathlib import Path

# An ended process counts with what it had used when it was last looked at.
LOOK_SECONDS = 0.25
TICKS = os.sysconf("SC_CLK_TCK")


class CpuSeconds:
    """Counts within a ``with`` block: ``driver`` is this process, ``all`` those it started, too."""

    def __enter__(self) -> CpuSeconds:
        self._used: dict[tuple[int, str], float] = {}
        self._before: dict[tuple[int, str], float] = {}
        self._look()
        self._before = dict(self._used)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    @property
    def all(self) -> float:
        return sum(self._used.values()) - sum(self._before.values())

    @property
    def driver(self) -> float:
        mine = [used for (pid, _), used in self._used.items() if pid == os.getpid()]
        before = [used for (pid, _), used in self._before.items() if pid == os.getpid()]
        return sum(mine) - sum(before)

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        parents: dict[int, int] = {}
        found: dict[int, tuple[str, float]] = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(folder.name)
            parents[pid] = int(fields[1])
            found[pid] = (fields[19], (int(fields[11]) + int(fields[12])) / TICKS)
        mine = {os.getpid()}
        for pid in found:
            line = [pid]
            while line[-1] in parents and line[-1] not in mine:
                line.append(parents[line[-1]])
            if line[-1] in mine:
                mine.update(line)
        for pid in mine & found.keys():
            self._used[pid, found[pid][0]] = found[pid][1]
