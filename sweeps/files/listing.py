"""The files of one folder, listed and read together, on a file system and on an object store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from sweeps.files.objects import ObjectPath
from sweeps.files.whole_files import Place


def versions(folder: Place) -> dict[str, str]:
    """Return the names of the files in a folder, in order, each with what changes when the file is
    another one; empty where there is no such folder."""
    found: dict[str, str] = {}
    if isinstance(folder, ObjectPath):
        found = {name: one.version for name, one in folder.entries().items() if "/" not in name}
        return dict(sorted(found.items()))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat()
                found[entry.name] = f"{stat.st_mtime_ns} {stat.st_size}"
    return dict(sorted(found.items()))


def contents(folder: Place, names: Sequence[str]) -> dict[str, bytes]:
    """Return files of a folder by name; one that has gone since it was listed is left out."""
    if isinstance(folder, ObjectPath):
        keys = {(folder / name).key: name for name in names}
        return {keys[key]: data for key, data in folder.files.get_many(keys).items()}
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = (folder / name).read_bytes()
    return found
