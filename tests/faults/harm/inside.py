"""What befalls an attempt from inside its process: given to it before it begins, and struck at one
of its operations on the store, so that the moment is exact."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.schedule import Fault

# Which operations on the store can be the last of a process, as Python's audit events name them.
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "shutil.rmtree"}
# How many of them an attempt makes, about; faults are spread over the first of them, and one in
# three over those from the closing record on.
FIRST, LAST = 300, 40
# How many names an attempt puts in place, and how many beats its heart has.
PUTS, BEATS = 60, 10
# What may be put in place late: the names of such files, and how many of them come before.
LATE = ((".parquet", 20), ("manifest.json", 6), ("DONE.json", 1))
HOUR = 3600.0
HEART = "heartbeat"


def befall(fault: Fault, runs: str, struck: Path) -> None:
    """Have a fault befall this process at the runs of a store; ``struck`` is made when it does.

    The smaller its ``pick``, the sooner it strikes.
    """
    once = _once(struck)
    if fault.kind in ("kill_at_operation", "stop_at_operation"):
        number = signal.SIGKILL if fault.kind.startswith("kill") else signal.SIGSTOP
        _signal_at(number, fault.pick, runs, once)
    elif fault.kind == "lost_reply":
        _lose_a_reply(fault.pick, runs, once)
    elif fault.kind == "late_put":
        _instead(_freeze(fault.pick, runs, once))
    elif fault.kind == "late_writer":
        _before_a_request(_freeze(fault.pick, runs, once))
    elif fault.kind == "clock_off":
        _set_the_clock(HOUR if fault.pick < 0.5 else -HOUR)
        once()


def _once(struck: Path) -> Callable[[], bool]:
    """Return what says whether this is the first time it is called, and marks that it was."""

    def once() -> bool:
        try:
            os.close(os.open(struck, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    return once


def _signal_at(number: int, pick: float, runs: str, once: Callable[[], bool]) -> None:
    """Send this process a signal right before one of its changes of the store; heartbeats come
    when they come, and are not counted."""
    closing = pick >= 2 / 3
    left = [1 + int((pick - 2 / 3) * 3 * LAST) if closing else 1 + int(pick * 1.5 * FIRST)]
    closed = [not closing]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not arguments or threading.current_thread().name == HEART:
            return
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes and not (isinstance(mode, str) and set(mode) & set("wax+")):
                return
        if not any(str(path).startswith(runs) for path in arguments[:2]):
            return
        if closed[0]:
            left[0] -= 1
            if left[0] == 0 and once():
                os.kill(os.getpid(), number)
        elif event == "os.link" and str(arguments[1]).endswith("DONE.json"):
            closed[0] = True

    sys.addaudithook(watch)


def _lose_a_reply(pick: float, runs: str, once: Callable[[], bool]) -> None:
    """Raise an error after something was put in place: by the run, its end, or its heart."""
    beating, ending = 0.5 <= pick < 0.75, pick >= 0.75
    left = [1 + int((pick - 0.5) * 4 * BEATS) if beating else 1 + int(pick * 2 * PUTS)]
    if ending:
        left = [1]
    number = errno.ESTALE if int(pick * 1000) % 2 else errno.EIO

    def reply(real: Callable[..., None], source: Any, target: Any, **more: Any) -> None:
        real(source, target, **more)
        heart = threading.current_thread().name == HEART
        if not str(target).startswith(runs) or heart != beating:
            return
        if ending and not str(target).endswith("DONE.json"):
            return
        left[0] -= 1
        if left[0] == 0 and once():
            raise OSError(number, os.strerror(number), str(target))

    _instead(reply)


def _freeze(pick: float, runs: str, once: Callable[[], bool]) -> Callable[..., Any]:
    """Freeze after the last look at who owns the run, right before something is put in place."""
    name, before = LATE[int(pick * len(LATE))]
    left = [1 + int(pick * len(LATE) % 1 * before)]

    def late(real: Callable[..., Any], source: Any, target: Any, **more: Any) -> Any:
        if str(target).startswith(runs) and str(target).endswith(name):
            left[0] -= 1
            if left[0] == 0 and once():
                os.kill(os.getpid(), signal.SIGSTOP)
        return real(source, target, **more)

    return late


def _before_a_request(act: Callable[..., Any]) -> None:
    """Have ``act`` called, as by ``_instead``, with the URL of what is put on an object store."""
    from sweeps.files.objects import ObjectFiles

    upload, conditional = ObjectFiles.upload, ObjectFiles._conditional

    def uploaded(self: ObjectFiles, path: Path, key: str) -> None:
        act(lambda *_: upload(self, path, key), path, f"{self.url}/{key}")

    def asked(self: ObjectFiles, key: str, data: bytes, wanted: str | None) -> str | None:
        tag: str | None = act(
            lambda *_: conditional(self, key, data, wanted), data, f"{self.url}/{key}"
        )
        return tag

    ObjectFiles.upload, ObjectFiles._conditional = uploaded, asked


def _instead(act: Callable[..., None]) -> None:
    """Have ``act`` called, with the real function first, by whatever gives a file its name."""

    def of(real: Callable[..., None]) -> Callable[..., None]:
        return lambda source, target, **more: act(real, source, target, **more)

    for name in ("link", "rename", "replace"):
        setattr(os, name, of(getattr(os, name)))


def _set_the_clock(ahead: float) -> None:
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + ahead
    time.time_ns = lambda: nanoseconds() + int(ahead * 1e9)
