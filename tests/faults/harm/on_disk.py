"""What befalls files and disks."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import TABLES
from sweeps.store.store import Store

DISK_MEBIBYTES = 48


class Disk:
    """A small tmpfs of the campaign's own, where one may be mounted; a plain folder otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEBIBYTES}m", "tmpfs", str(path)],
            capture_output=True,
        )
        self.mounted = mounted.returncode == 0
        # One thing at a time: a full disk that is read-only could not be freed.
        self.troubled = False

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free."""
        self.troubled = True
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        try:
            yield
        finally:
            filler.unlink()
            self.troubled = False

    @contextmanager
    def read_only(self) -> Iterator[bool]:
        """Refuse writes; yields False where a file that is open for writing prevents it."""
        self.troubled = True
        done = any(self._remount("ro") or time.sleep(0.02) for _ in range(40))
        try:
            yield done
        finally:
            if done:
                while not self._remount("rw"):
                    time.sleep(0.02)
            self.troubled = False

    def _remount(self, how: str) -> bool:
        command = ["mount", "-o", f"remount,{how}", str(self.path)]
        return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def small_files_only(pid: int, size: int) -> Iterator[None]:
    """Make each write of a process beyond ``size`` bytes of a file fail with EFBIG."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


# What only a resume reads: its run is ended with it, or nothing would come of the harm.
READ_BY_A_RESUME = ("checkpoint", "manifest", "part")


def harm_file(store: Store, kind: str, pick: float) -> str | None:
    """Flip a bit of, or cut off, the newest file of a kind; return the run, None without one."""
    harm, what = kind.split("_", 1)
    found = [(folder, path) for folder in store.runs() for path in _files(folder, what)]
    if what in READ_BY_A_RESUME:
        # What has a result is harmed too, but one that a resume will read is preferred.
        found = [each for each in found if each[0].done() is None] or found
    if not found:
        return None
    folder, path = found[int(pick * len(found))]
    place = pick * 7919 % 1  # another number between 0 and 1
    with suppress(FileNotFoundError, OSError):
        before = path.stat()
        data = bytearray(path.read_bytes())
        if not data:
            return None
        if harm == "truncate":
            data = data[: int(place * len(data))]
        else:
            data[int(place * len(data))] ^= 1 << int(pick * 8)
        with path.open("r+b") as file:  # in place, as a failing disk does
            file.truncate(len(data))
            file.write(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return folder.run_id
    return None


def _files(folder: RunFolder, what: str) -> list[Path]:
    if what == "part":
        return [path for table in TABLES for path in folder.parts(table)[-1:]]
    if what in ("checkpoint", "manifest"):
        newest = folder.checkpoints()[-1:]
        names = "manifest.json" if what == "manifest" else "[lr]*"
        return [path for checkpoint in newest for path in checkpoint.glob(names)]
    if what == "attempt":
        return [folder.attempt_path(number) for number in folder.attempt_numbers()[-1:]]
    path = folder.path / {"done": "DONE.json", "run": "run.json"}[what]
    return [path] if path.is_file() else []
