"""What lies beside the runs of a store, and on this node, that nobody uses any more.

Of a file its server says when it was last written or read, and of the same server's clock what time
it is now: two machines' clocks are never compared. An object store says neither; there is nothing
of this kind on one, but in the caches on this node.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from sweeps.files.trees import files_below, remove, untouched
from sweeps.files.whole_files import is_local
from sweeps.node_cache import node_cache
from sweeps.store.store import Store
from sweeps.upkeep.rubbish import TEMPORARIES, Rubbish
from sweeps.upkeep.sizes import ROOMS

CACHED, MIRRORS, SCRATCH = "cached things", "copies of stores on this node", "scratch on this node"
DAY = 86_400.0
# What a writer has not touched for so long it will not put in place any more.
ABANDONED_SECONDS = 3_600.0
# A copy of an object store that nobody has read for so long is stale.
MIRROR_DAYS = 30.0
MIRROR_ROOM = "mirrors"
SCRATCH_DAYS = 7.0
# Under which names writers put what is not whole yet; see ``sweeps.files.whole_files``.
ASIDE = re.compile(r"\..+\.\d+-[0-9a-f]{16}(\.tmp)?")
# What this program's scratch folders and files are called; see their ``prefix``.
SCRATCH_PREFIX = "depthsweep-"


def leftovers(store: Store, cache_days: float | None = None) -> Iterator[Rubbish]:
    """Yield what writers left behind beside runs, stale copies and scratch of this node, and, where
    ``cache_days`` says after how long, what is cached and unused."""
    if is_local(store.root):
        yield from _abandoned(store.root)
    yield from _mirrors(MIRROR_DAYS if cache_days is None else cache_days)
    yield from _scratch(Path(tempfile.gettempdir()))
    if cache_days is not None:
        yield from _cached(store.cache, cache_days)


def _abandoned(root: Path) -> Iterator[Rubbish]:
    """Yield temporaries of a store beside its runs: of sweeps, caches and records of its own."""
    names = sorted(os.listdir(root)) if root.is_dir() else []
    for name in names:
        if name in ROOMS:
            continue
        asides = {_aside(f"{name}/{file}") for file in files_below(root / name)} | {_aside(name)}
        for top in sorted(one for one in asides if one is not None):
            place = root / top
            unused = partial(untouched, place, ABANDONED_SECONDS)
            if unused():
                yield _item(TEMPORARIES, place, unused)


def _aside(name: str) -> str | None:
    """Return the part of a path down to the first name that a writer has given to what it has not
    put in place; None where there is none."""
    parts = PurePosixPath(name).parts
    for depth, part in enumerate(parts, start=1):
        if ASIDE.fullmatch(part):
            return "/".join(parts[:depth])
    return None


def _cached(cache: Path, days: float) -> Iterator[Rubbish]:
    """Yield what a cache holds, a file or folder of a room each, that was not used for so long."""
    if not cache.is_dir():
        return
    for room in sorted(cache.iterdir()):
        if not room.is_dir() or room.name == MIRROR_ROOM or room.name.startswith("."):
            continue
        for place in sorted(room.iterdir()):
            if place.name.startswith(".") or place.suffix == ".lock":
                continue
            unused = partial(untouched, place, days * DAY)
            if unused():
                yield _item(CACHED, place, unused)


def _mirrors(days: float) -> Iterator[Rubbish]:
    """Yield copies of object stores that were not read for so long; one that is just being brought
    up to date is held, and stays."""
    folder = node_cache() / MIRROR_ROOM
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if place.is_dir() and not place.name.startswith("."):
            unused = partial(untouched, place, days * DAY)
            if unused():
                yield _item(MIRRORS, place, unused, partial(_drop_held, place))


def _drop_held(place: Path) -> None:
    try:
        with FileLock(f"{place}.lock", timeout=0):
            remove(place)
    except Timeout:
        raise OSError(errno.EBUSY, "is in use") from None


def _scratch(folder: Path) -> Iterator[Rubbish]:
    """Yield scratch of this user's processes on this node that a process left when it was killed:
    untouched for a week, held open by none, and no place where one listens."""
    for place in sorted(folder.glob(f"{SCRATCH_PREFIX}*")):
        unused = partial(_is_left, place)
        if unused():
            yield _item(SCRATCH, place, unused)


def _is_left(place: Path) -> bool:
    try:
        if place.lstat().st_uid != os.getuid() or place.is_symlink():
            return False
        if place.is_dir() and any(stat.S_ISSOCK(p.lstat().st_mode) for p in place.rglob("*")):
            return False
    except OSError:
        return False
    return untouched(place, SCRATCH_DAYS * DAY) and not _held_open(place)


def _held_open(place: Path) -> bool:
    """Return whether a process of this user has a file below a place open, or stands in it."""
    start = str(place)
    for process in Path("/proc").glob("[0-9]*"):
        links = [process / "cwd"]
        try:
            links += list((process / "fd").iterdir())
        except OSError:
            continue
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target == start or target.startswith(f"{start}/"):
                return True
    return False


def _item(
    what: str,
    place: Path,
    still: Callable[[], bool],
    drop: Callable[[], object] | None = None,
) -> Rubbish:
    size = sum(seen.bytes for seen in files_below(place).values())
    size = size or (place.stat().st_size if place.is_file() else 0)
    return Rubbish(what, str(place), size, still, drop or partial(remove, place))
