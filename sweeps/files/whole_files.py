"""How a file of a store gets there whole or not at all, and how it is read back.

On a local disk a file is written aside, synced and renamed; on an object store it is made in a
scratch folder and put as one object. Files and folders have the mode that the umask, or the folder
they lie in, gives a new one, whatever the library that wrote them thinks: a store is shared.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import TypeIs

from sweeps.files.objects import Entry, ObjectPath, scratch_folder

Place = Path | ObjectPath
Result = TypeVar("Result")


def no_guard() -> None:
    """Let everything be put in place: for files that have no single owner."""


@contextmanager
def whole_file(
    path: Place, guard: Callable[[], None] = no_guard, *, within: Place | None = None
) -> Iterator[Path]:
    """Yield a temporary local path; on success it is synced and takes its place, as one object.

    ``guard`` is called before that and raises to prevent it. Folders are made down from ``within``,
    which must be there where it is given: FileNotFoundError.
    """
    if isinstance(path, ObjectPath):
        with scratch_folder() as folder:
            yield folder / path.name
            guard()
            path.files.upload(folder / path.name, path.key)
        return
    make_folder(path.parent, within)
    temporary = aside_of(path)
    mode = _create(temporary)
    try:
        yield temporary
        _open_to(temporary, mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        guard()
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path, within: Place | None = None) -> None:
    """Make a folder and those above it; no higher than ``within``, which must be there already.

    A folder of a run that was removed, or of a store whose mount went away, is not made anew.
    """
    if isinstance(within, Path):
        if not within.is_dir():
            raise FileNotFoundError(errno.ENOENT, "is not there any more", str(within))
        missing = [path, *path.parents][: len(path.relative_to(within).parts)]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
        return
    path.mkdir(parents=True, exist_ok=True)


def sync_folder(path: Path) -> None:
    """See to it that the names in a folder outlast a loss of power, where its file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def create_aside(path: Path, data: bytes) -> None:
    """Write a new file to the disk, under a name that no reader looks at."""
    _create(path)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def aside_of(path: Path) -> Path:
    """Return a name beside ``path`` that no other process takes.

    A process id alone is not unique: containers on several nodes count theirs alike.
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(8)}.tmp")


def _create(path: Path) -> int:
    """Create a file and return its mode: what the umask and the folder's own rules make of 0666."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _open_to(path: Path, mode: int) -> None:
    """Give a file a mode, where a library replaced it with one of its own."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


@contextmanager
def local_file(path: Place) -> Iterator[Path]:
    """Yield a local path with the content of ``path``; raise FileNotFoundError if it is gone."""
    if isinstance(path, Path):
        yield path
        return
    with scratch_folder() as folder:
        path.files.download(path.key, folder / path.name)
        yield folder / path.name


def is_local(place: Place) -> TypeIs[Path]:
    """Return whether a place is a path of this machine, which libraries read as it is."""
    return isinstance(place, Path)


def children(path: Place) -> list[Place]:
    """Return what stands one level below a folder, in order of name; nothing where it is not."""
    if isinstance(path, ObjectPath):
        return [path / name for name in sorted(path.names())]
    try:
        return [path / name for name in sorted(os.listdir(path))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def occupied(path: Place) -> list[Place]:
    """Return the same, of an object store only what is an object or has one below: a server may
    show a folder for a while after the last object in it has gone (SeaweedFS does)."""
    if isinstance(path, ObjectPath):
        return [path / name for name in sorted({key.split("/")[0] for key in path.entries()})]
    return children(path)


def names_with(path: Place, file: str) -> list[str]:
    """Return the names of the folders below a folder in which there is a file of a name."""
    if isinstance(path, ObjectPath):
        return [found.parent.name for found in path.glob(f"*/{file}")]
    # A glob takes ten times as long, and recovery asks this of every unfinished run.
    return [folder.name for folder in children(path) if os.path.exists(f"{folder}/{file}")]


def remove_folder(path: Place) -> None:
    """Remove all below a path; nothing where there is nothing."""
    if isinstance(path, ObjectPath):
        path.remove_all()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def whole_folder(path: Path, still_wanted: Callable[[], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes its place, unless one is there by then.

    With ``still_wanted`` it takes the place also of a folder that is there, if that says so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside_of(path)
    temporary.mkdir()
    mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
    old = aside_of(path)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _open_to(file, mode)
        if still_wanted is not None and path.exists() and still_wanted():
            path.replace(old)
        if not path.exists():
            temporary.replace(path)
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_text(
    path: Place, text: str, guard: Callable[[], None] = no_guard, *, within: Place | None = None
) -> None:
    with whole_file(path, guard, within=within) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(
    path: Place, data: Any, guard: Callable[[], None] = no_guard, *, within: Place | None = None
) -> None:
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n", guard, within=within)


def unless_stale(read: Callable[[], Result]) -> Result:
    """Return ``read()``, asked once more where another machine replaced the file while it was read:
    a network file system then has no more of the old one."""
    try:
        return read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return read()


def read_json(path: Place) -> dict[str, Any]:
    """Return the object a file holds; raise ValueError where it holds something else."""
    data = json.loads(unless_stale(partial(path.read_text, encoding="utf-8")))
    if not isinstance(data, dict):
        raise ValueError(f"{path}: not a JSON object")
    return data


def read_if_readable(path: Place) -> dict[str, Any] | None:
    """Return the object a file holds, or None where there is none or it cannot be read."""
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return None


def file_checksum(path: Place) -> str:
    with local_file(path) as local, local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sizes_of(paths: Iterable[Place]) -> dict[Place, int]:
    """Return the size in bytes of each file; one that is not there is left out."""
    found: dict[Place, int] = {}
    listings: dict[Place, dict[str, Entry]] = {}
    for path in paths:
        if isinstance(path, Path):
            if path.is_file():
                found[path] = path.stat().st_size
            continue
        above = path.parent
        if above not in listings:
            listings[above] = above.entries()
        entry = listings[above].get(path.name)
        if entry is not None:
            found[path] = entry.size
    return found


def account_of(paths: Iterable[Place]) -> dict[Place, dict[str, Any]]:
    """Return size in bytes and SHA-256 of each file; one that is not there is left out."""
    found: dict[Place, dict[str, Any]] = {}
    listings: dict[str, dict[str, Entry]] = {}
    for path in paths:
        if isinstance(path, Path):
            if path.is_file():
                found[path] = {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
            continue
        above = path.parent
        if above.key not in listings:
            listings[above.key] = above.entries()
        entry = listings[above.key].get(path.name)
        if entry is not None:
            read = partial(file_checksum, path)
            checksum = path.files.checksum(path.key, entry, read)
            found[path] = {"bytes": entry.size, "sha256": checksum}
    return found
