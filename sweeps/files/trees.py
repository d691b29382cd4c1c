"""Whole folders of a store, on a file system and on an object store alike: listed, copied, removed.

What is copied is checked on the way against the checksum that a record gives, and gets there whole.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.files.objects import ObjectPath
from sweeps.files.whole_files import Place, aside_of, local_file, remove_folder, whole_file

CHUNK = 1 << 20


class Damaged(ValueError):
    """A file is not what the record that lists it says."""


@dataclass(frozen=True)
class Seen:
    """What a listing says of a file; ``used`` is when it was last written or read, in seconds
    since 1970 by its server's clock, None where the server does not say."""

    bytes: int
    used: float | None


def files_below(place: Place) -> dict[str, Seen]:
    """Return every file below a folder by its name relative to it, hidden ones too; links are not
    followed. Nothing where there is no such folder."""
    if isinstance(place, ObjectPath):
        return {name: Seen(entry.size, None) for name, entry in place.entries().items()}
    return dict(_walk(str(place), ""))


def folders_below(place: Place) -> Iterator[tuple[str, dict[str, Seen]]]:
    """Yield each folder one level below a place, in order of name, with its ``files_below``.

    An object store is listed once for all of them.
    """
    if isinstance(place, ObjectPath):
        found: dict[str, dict[str, Seen]] = {}
        for key, seen in files_below(place).items():
            name, below, rest = key.partition("/")
            if below:
                found.setdefault(name, {})[rest] = seen
        yield from sorted(found.items())
        return
    try:
        names = sorted(entry.name for entry in os.scandir(place) if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        yield name, files_below(place / name)


def _walk(folder: str, start: str) -> Iterator[tuple[str, Seen]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{start}{entry.name}/")
                continue
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield f"{start}{entry.name}", Seen(found.st_size, max(found.st_mtime, found.st_atime))


def last_used(place: Path) -> float:
    """Return when a file, or any file in a folder, was last written or read; see ``Seen``. Of a
    folder without a file, when something in it was made or removed."""
    found = place.stat()
    if not place.is_dir():
        return max(found.st_mtime, found.st_atime)
    times = [seen.used or 0.0 for seen in files_below(place).values()]
    return max(times, default=found.st_mtime)


def untouched(place: Place, seconds: float) -> bool:
    """Return whether a file or folder was neither written nor read for so long, by the clock that
    stamps what lies beside it.

    False where nothing is there, or where this user could not remove it. Of an object its server
    does not say when it was read: True.
    """
    if isinstance(place, ObjectPath):
        return True
    try:
        return place.exists() and _server_now(place.parent) - last_used(place) > seconds
    except OSError:
        return False


def _server_now(folder: Path) -> float:
    """Return the time by the clock that stamps the files of a folder, which may be a server's."""
    probe = folder / f".now-{secrets.token_hex(8)}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def copy_file(source: Place, target: Place, sha256: str | None = None) -> int:
    """Copy one file, whole or not at all, and return its bytes.

    Raises Damaged, and puts nothing in place, where its content has not the checksum given;
    FileNotFoundError where it is not there.
    """
    digest, size = hashlib.sha256(), 0
    with local_file(source) as local, local.open("rb") as reading, whole_file(target) as aside:
        with aside.open("wb") as writing:
            while chunk := reading.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                writing.write(chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise Damaged(f"{source} does not match its checksum")
    return size


def remove(place: Place) -> None:
    """Remove a file, or a folder with all that is in it.

    A folder is renamed first: nobody finds half of it. Raises OSError where it cannot be removed;
    what is gone already is no error.
    """
    if isinstance(place, ObjectPath):
        place.unlink()
        remove_folder(place)
        return
    if not place.is_dir() or place.is_symlink():
        place.unlink(missing_ok=True)
        return
    aside = aside_of(place)
    try:
        place.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside)
