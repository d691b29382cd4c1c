"""Waiting for a store that is full or out of reach, for a while, before giving up in words."""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
# What may pass: a full disk, a quota, a device or a network file system that went away.
PASSING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EROFS,
    errno.ENODEV,
    errno.ENOTCONN,
    errno.EHOSTUNREACH,
}


class StoreUnavailable(OSError):
    """The store could not be written for as long as a run waits."""


def patiently(write: Callable[[], Result], path: object) -> Result:
    """Return ``write()``, trying again with growing waits while the store cannot be written.

    ``write`` must leave nothing half done when it raises. Raises StoreUnavailable, naming the path
    and its free space, or the URL, when patience runs out; any error that will not pass is raised
    at once.
    """
    wait, waited = FIRST_WAIT_SECONDS, 0.0
    while True:
        try:
            return write()
        except OSError as error:
            if not _passes(error):
                raise
            if not waited:
                logging.getLogger(__name__).warning("%s: waiting for it: %s", path, error)
            if waited >= PATIENCE_SECONDS:
                raise StoreUnavailable(
                    f"{path}: could not be written for {waited:.0f} s ({error.strerror or error});"
                    f"{_free(path)} bring it back, then resume"
                ) from error
        time.sleep(wait)
        waited += wait
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _passes(error: OSError) -> bool:
    # safetensors and Arrow carry the system's message and sometimes no number.
    return error.errno in PASSING or "No space left" in str(error)


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
