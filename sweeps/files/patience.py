"""Waiting for a store that is full or out of reach, for a while, before giving up in words.

What never passes is not waited for: a store that refuses is for a person to open.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sweeps.errors import UserError

Result = TypeVar("Result")

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
# A client of an object store tries again by itself, one of them for three minutes.
SILENCE_SECONDS = 5.0
# What may pass: a full disk, a quota, a device, a network or a file system that went away. A
# connection that broke and a time that ran out are ConnectionError and TimeoutError besides.
PASSING = {
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EIO", "EREMOTEIO", "EBUSY", "EAGAIN", "EINTR", "ENOLCK"),
        *("ESTALE", "ENODEV", "ENXIO", "ENOTCONN", "ESHUTDOWN", "ENOLINK", "ECOMM"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
}
# What a person must mend: rights, a file system that is mounted for reading, keys of a network one.
REFUSED = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED")
    if hasattr(errno, name)
}


def remedy(error: OSError, right: str = "give this user the right") -> str:
    """Return what a person has to do about an error that is REFUSED; ``right`` where it is one of
    rights, which is not to be asked for where nobody may write, or a key has run out."""
    if error.errno == errno.EROFS:
        return "it is mounted for reading: mount it for writing"
    if error.errno in REFUSED - {errno.EACCES, errno.EPERM}:
        return "its file system takes a key that this user has not: renew it"
    return right


class StoreUnavailable(OSError):
    """The store could not be written for as long as a run waits."""


class StoreRefused(UserError, OSError):
    """The store refuses what was asked, and will for as long as nobody mends it."""


def patiently(write: Callable[[], Result], path: object) -> Result:
    """Return ``write()``, trying again with growing waits while the store cannot be written.

    ``write`` must leave nothing half done when it raises. Raises StoreUnavailable, naming the path
    and its free space, or the URL, when patience runs out. An error that will not pass is raised at
    once: StoreRefused where a person must mend it, as it is otherwise.
    """
    wait, waited = FIRST_WAIT_SECONDS, 0.0
    with _waiting() as begin:
        while True:
            try:
                return write()
            except OSError as error:
                if error.errno in REFUSED:
                    raise _refusal(error, path) from error
                if not _passes(error):
                    raise
                if not waited:
                    logging.getLogger(__name__).warning("%s: waiting for it: %s", path, error)
                begin()
                if waited >= PATIENCE_SECONDS:
                    raise StoreUnavailable(
                        f"{path}: could not be written for {waited:.0f} s"
                        f" ({error.strerror or error});{_free(path)} bring it back, then resume"
                    ) from error
            time.sleep(wait)
            waited += wait
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)


_lock = threading.Lock()
_silent: set[str] = set()


@contextmanager
def telling_of_silence(place: str) -> Iterator[None]:
    """Warn where what is done in the context has lasted for SILENCE_SECONDS, of a place once."""

    def tell() -> None:
        with _lock:
            known = place in _silent
            _silent.add(place)
        if not known:
            said = "%s: no answer in %.0f s; its client goes on trying"
            logging.getLogger(__name__).warning(said, place, SILENCE_SECONDS)

    timer = threading.Timer(SILENCE_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_since: dict[object, float] = {}


def waiting_since() -> float | None:
    """Return since when this process has been waiting for a store, in any of its threads.

    In seconds of ``time.monotonic``; None while nothing is waited for. Of several that wait it is
    the first one's. May be called from any thread.
    """
    with _lock:
        return min(_since.values(), default=None)


@contextmanager
def _waiting() -> Iterator[Callable[[], None]]:
    """Yield what says that the caller has begun to wait; it has ended with the context."""
    waiter = object()

    def begin() -> None:
        with _lock:
            _since.setdefault(waiter, time.monotonic())

    try:
        yield begin
    finally:
        with _lock:
            _since.pop(waiter, None)


def _passes(error: OSError) -> bool:
    if isinstance(error, (StoreUnavailable, StoreRefused)):  # it has been waited for already
        return False
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    # safetensors and Arrow carry the system's message and sometimes no number.
    return error.errno in PASSING or "No space left" in str(error)


def _refusal(error: OSError, path: object) -> StoreRefused:
    return StoreRefused(
        f"{path}: cannot be written ({error.strerror}) and no waiting helps; {remedy(error)}, then"
        " resume"
    )


def _free(path: object) -> str:
    if not isinstance(path, Path):
        return ""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return f" {shutil.disk_usage(folder).free / 2**20:.0f} MiB free there. Make room or"
    except OSError:
        return " Make room or"
