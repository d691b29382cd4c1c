"""Records that one of many may create or replace, in a folder or on an object store alike.

``create`` and ``replace_if`` are decided by whoever keeps the files, at one moment, and not by what
a client has seen: not by a listing, a cache or a clock. Everything that must be exclusive in a
store is one of these two: the claim of an attempt, its heartbeat, its end, a run's closing record.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.files import folder_records
from sweeps.files.whole_files import Place, make_folder, unless_stale

# What a record on an object store has beside its content: who wrote it, and when by its own clock.
# Equal content would also get equal tags.
BY = "by"
MADE = "made"
# How often a folder is made anew that goes before a record is in it: more often somebody else must
# be at the store itself.
REMOVED_MEANWHILE = 10


@dataclass(frozen=True)
class Seen:
    """A record as it was seen: ``data`` is None where it could not be read.

    ``version`` is what a replacement names, "" where it cannot be replaced any more. ``sign``
    changes with each sign of its owner's life; ``by`` made that version, at ``made`` by its own
    clock, None for what is not known.
    """

    data: dict[str, Any] | None
    version: str
    sign: str
    by: str | None
    made: float | None


def create(
    place: Place, data: Mapping[str, Any], token: str | None = None, *, within: Place | None = None
) -> str | None:
    """Write a record if there is none; return its version, or None where another one is there.

    A record with a ``token``, its writer's own and part of ``data``, can be replaced later on.
    Folders are made down from ``within``, which must be there where it is given: FileNotFoundError.
    An error that may pass is raised as OSError, and not waited for, as by all functions here: what
    was asked for may have been done.
    """
    if isinstance(place, Path):
        return _create_in_folder(place, _text(data), token, within)
    return place.files.create(place.key, _signed(data, token) if token else _text(data))


def _create_in_folder(
    path: Path, data: bytes, token: str | None = None, within: Place | None = None
) -> str | None:
    """Make a record with its folder, which whoever needs it no longer may be removing."""
    for _ in range(REMOVED_MEANWHILE):
        make_folder(path.parent, within)
        try:
            return folder_records.create(path, data, token)
        except FileNotFoundError:
            continue
    raise FileNotFoundError(errno.ENOENT, "its folder goes again and again", str(path))


def put_new(place: Place, data: bytes) -> bool:
    """Write a file whole if none is there; return whether it was not. Raises OSError."""
    if place.exists():
        return False
    if isinstance(place, Path):
        return _create_in_folder(place, data) is not None
    return place.files.create(place.key, data) is not None


def replace_if(
    place: Place, data: Mapping[str, Any], version: str, by: str, *, last: bool = False
) -> str | None:
    """Replace a record if it has the version still; return the new one, or None where it has not.

    ``by`` is the token of who does so. After the ``last`` replacement there is no other.
    """
    if isinstance(place, Path):
        return folder_records.replace_if(place, _text(data), version, by, last=last)
    return place.files.replace_if(place.key, _signed(data, by), version)


def renew(place: Place, data: Mapping[str, Any], version: str, by: str) -> str | None:
    """Give a record a new version if it has the one named still; return it, or None.

    ``data`` is what the record holds.
    """
    if isinstance(place, Path):
        return folder_records.replace_if(place, None, version, by)
    return place.files.replace_if(place.key, _signed(data, by), version)


def versions(folder: Place) -> dict[str, str]:
    """Return the names of the records in a folder, each with its version as it is now.

    "" is the version of one that cannot be replaced any more.
    """
    if isinstance(folder, Path):
        try:
            names = [name for name in os.listdir(folder) if name.endswith(".json")]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        sealed = folder_records.versions(folder)
        return {name: sealed.get(name, "") for name in names if not name.startswith(".")}
    found = folder.entries().items()
    return {name: entry.tag for name, entry in found if "/" not in name and name.endswith(".json")}


def look(place: Place, version: str) -> Seen | None:
    """Return a record, given the version it had a moment ago; None where it is gone.

    The version is older than the content then, or of it: who replaces it replaces what was seen.
    """
    if isinstance(place, Path):
        try:
            stat, content = unless_stale(partial(_opened, place))
        except FileNotFoundError:
            return None
        sign = version or f"{stat.st_mtime_ns} {stat.st_size}"
        when = folder_records.made(version) or stat.st_mtime
        return Seen(_object(content), version, sign, folder_records.maker(version), when)
    try:
        data = _object(place.read_bytes())
    except FileNotFoundError:
        return None
    by, made = (data or {}).get(BY), (data or {}).get(MADE)
    return Seen(
        data,
        version,
        version,
        by if isinstance(by, str) else None,
        made if isinstance(made, float) else None,
    )


def left_beside(folder: Place) -> list[Place]:
    """Return what crashes have left beside the records of a folder; objects are put whole."""
    return list(folder_records.left(folder)) if isinstance(folder, Path) else []


def _opened(path: Path) -> tuple[os.stat_result, bytes]:
    # Of a file that is opened just now a network file system tells what the server knows.
    with path.open("rb") as file:
        return os.fstat(file.fileno()), file.read()


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(content)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _signed(data: Mapping[str, Any], by: str) -> bytes:
    return _text({**data, BY: by, MADE: time.time()})


def _text(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()
