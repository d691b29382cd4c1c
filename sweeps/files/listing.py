"""The files of one folder, listed and read together, on a file system and on an object store."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sweeps.files.objects import Entry, ObjectPath
from sweeps.files.whole_files import Place


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


# Up to so many folders of a room are listed one by one, so many at once; of more, all there are.
FEW = 64
AT_ONCE = 16


def listed_for(folders: Collection[str], rooms: Iterable[str]) -> tuple[str, ...]:
    """Return what is listed of an object store to know of some folders, given as ``room/name``:
    each of them, or where they are many all of their room, a thousand objects a request."""
    found: list[str] = []
    for room in rooms:
        some = [folder for folder in folders if folder.startswith(f"{room}/")]
        found += some if len(some) <= FEW else [room]
    return tuple(found)


def listings(root: Place, folders: Sequence[str]) -> dict[str, dict[str, Entry]]:
    """Return ``entries`` of each of some folders, asked for side by side."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda folder: entries(root / folder), folders)
        return dict(zip(folders, found, strict=True))


def entries(folder: Place) -> dict[str, Entry]:
    """Return every file below a folder by its path in it, with a version that another one has not;
    of an object store in one listing."""
    if isinstance(folder, ObjectPath):
        return folder.entries()
    found = {}
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                stat = path.stat()
                entry = Entry(stat.st_size, f"{stat.st_mtime_ns} {stat.st_size}")
                found[str(path.relative_to(folder))] = entry
    return found
