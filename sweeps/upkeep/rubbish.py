"""What no record of a store lists any more, found and removed without touching what lives.

A run that has ended needs its records, its logs and what DONE.json lists. Of one that goes on, or
may go on, only what a writer left aside and no attempt will ever finish. Everything is asked for
twice: when it is found, and again right before it is removed (``Rubbish.remove``), so that a run
that has begun meanwhile keeps all it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from sweeps.attempts.living import Vigil, watched
from sweeps.files.trees import Seen, files_below, folders_below, remove, untouched
from sweeps.liveness.watch import stale_seconds
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
from sweeps.upkeep.sizes import ROOMS

PARTS = "parts that no record lists"
CHECKPOINTS = "checkpoints of runs that have ended"
TEMPORARIES = "what writers left behind"
STRAYS = "runs of no sweep"


@dataclass(frozen=True)
class Rubbish:
    """One thing that can go: what it is, where it lies, how many bytes it takes.

    ``still`` says whether it can go at this moment.
    """

    what: str
    where: str
    bytes: int
    still: Callable[[], bool]
    drop: Callable[[], object]

    def remove(self) -> bool:
        """Remove it if it can still go; return whether it went. Raises OSError where the store
        does not let this user."""
        if not self.still():
            return False
        self.drop()
        return True


def rubbish_of_runs(store: Store) -> list[Rubbish]:
    """Return what runs and measurements of a store no longer need, those that live left out.

    It takes as long as ``alive_runs`` where there is anything to remove.
    """
    found: dict[RunFolder, list[Rubbish]] = {}
    for room in ROOMS:
        for work_id, files in folders_below(store.root / room):
            folder = store.work(work_id)
            if folder.path.parent.name == room and (items := list(_of_run(folder, files))):
                found[folder] = items
    return _of_the_dead(found)


def strays(store: Store) -> list[Rubbish]:
    """Return the runs of no version of any sweep, those that live left out."""
    found = {}
    for run_id in store.strays():
        folder = store.run(run_id)
        size = sum(seen.bytes for seen in files_below(folder.path).values())
        item = Rubbish(STRAYS, run_id, size, lambda: True, folder.forget)
        found[folder] = [item]
    return _of_the_dead(found)


def _of_the_dead(found: dict[RunFolder, list[Rubbish]]) -> list[Rubbish]:
    """Return what is of runs that nobody is at; each is looked at once more before it goes."""
    dead = _dead(found)
    return [
        replace(item, still=partial(_both, vigil, item.still))
        for folder, vigil in dead.items()
        for item in found[folder]
    ]


def _both(vigil: Vigil, still: Callable[[], bool]) -> bool:
    return vigil.look() == "gone" and still()


def _dead(folders: Iterable[RunFolder]) -> dict[RunFolder, Vigil]:
    """Return a vigil over each run that nobody is at, kept for looking again; all are watched
    together."""
    judged = watched(tuple(folders))
    return {folder: vigil for folder, (vigil, alive) in judged.items() if not alive}


# ------------------------------------------------------------------------------------------ one run
def _of_run(folder: RunFolder, files: dict[str, Seen]) -> Iterator[Rubbish]:
    """Yield what a run does not need, from the listing of its folder."""
    aside = {name for name in files if _is_aside(name)}
    for top in _tops(aside):
        yield from _temporary(folder, top, files, lambda: True)
    done = folder.done() if "DONE.json" in files else None
    others = {name: seen for name, seen in files.items() if not _is_hidden(name)}
    checkpoints = _checkpoints(others)
    if done is None:
        for name, inside in checkpoints.items():
            if f"{name}/manifest.json" not in inside:
                yield from _temporary(folder, name, files, partial(_not_closed, folder))
        return
    same = partial(_closed_as, folder, done)
    for name in others:
        room = name.split("/")[0]
        if room in TABLES and name not in done["parts"]:
            yield _item(folder, PARTS, name, files, same)
    kept = folder.kept(folder.keeps()) if checkpoints else None
    for name in checkpoints:
        if folder.path / name != kept:
            yield _item(folder, CHECKPOINTS, name, files, same)


def _is_aside(name: str) -> bool:
    """Return whether a file is one that a writer has not put in place; records of attempts may
    have hidden versions, and a network file system hides what somebody still has open."""
    *folders, file = PurePosixPath(name).parts
    hidden = [part for part in (*folders, file) if part.startswith(".")]
    if any(part.startswith(".nfs") for part in hidden):
        return False
    if folders[:1] == ["attempts"]:
        return file.startswith(".") and file.endswith(".tmp")
    return bool(hidden)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _tops(names: Iterable[str]) -> list[str]:
    """Return the hidden files, and of what lies in a hidden folder that folder, each once."""
    found = []
    for name in names:
        parts = PurePosixPath(name).parts
        depth = next(k for k, part in enumerate(parts, start=1) if part.startswith("."))
        found.append("/".join(parts[:depth]))
    return list(dict.fromkeys(found))


def _checkpoints(files: dict[str, Seen]) -> dict[str, set[str]]:
    """Return the folders of checkpoints with the files in them, in order of their names."""
    found: dict[str, set[str]] = {}
    for name in sorted(files):
        parts = PurePosixPath(name).parts
        if parts[0] == "checkpoints" and len(parts) > 2:
            found.setdefault("/".join(parts[:2]), set()).add(name)
    return found


def _temporary(
    folder: RunFolder, name: str, files: dict[str, Seen], still: Callable[[], bool]
) -> Iterator[Rubbish]:
    """Yield what a writer has left, if it has not touched it for as long as a lease."""
    item = _item(folder, TEMPORARIES, name, files, still)
    old = partial(untouched, folder.path / name, stale_seconds())
    if old():
        yield replace(item, still=lambda: old() and still())


def _item(
    folder: RunFolder,
    what: str,
    name: str,
    files: dict[str, Seen],
    still: Callable[[], bool],
) -> Rubbish:
    below = f"{name}/"
    size = sum(s.bytes for path, s in files.items() if path == name or path.startswith(below))
    place = folder.path / name
    return Rubbish(what, f"{folder.run_id}/{name}", size, still, partial(remove, place))


def _closed_as(folder: RunFolder, done: dict[str, Any]) -> bool:
    return folder.done() == done


def _not_closed(folder: RunFolder) -> bool:
    return folder.done() is None


def told(items: Sequence[Rubbish]) -> dict[str, tuple[int, int]]:
    """Return how many there are of each kind, and how many bytes they take."""
    found: dict[str, tuple[int, int]] = {}
    for item in items:
        count, size = found.get(item.what, (0, 0))
        found[item.what] = count + 1, size + item.bytes
    return found
